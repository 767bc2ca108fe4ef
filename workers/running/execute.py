"""The use case of a worker: claim a job, have the engine answer it, store the answer with its bill.

Knows no Celery: a task calls `Execute.run`. Delivery is at least once, so every step is fenced by the claim.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection

from headrace import store
from headrace.domain.attempts import AttemptEnd, Claim
from headrace.domain.ids import show_id
from headrace.domain.prompts import prompt_digest
from headrace.domain.states import SUSPECT, JobState
from headrace.errors import EngineBusy, EngineCrash, EngineError, EngineUnavailable, StoreUnavailable
from headrace.store import Store
from workers.engines.base import Engine, Generation, GenerationRequest, OnDelta
from workers.outcomes import Outcome
from workers.paid.payer import NO_CALL, NotYet, Objection, Payer
from workers.running.attempts import RunningAttempts, StopReason
from workers.running.bill import Bill
from workers.running.crashes import Crashes
from workers.running.notices import Notices
from workers.running.publisher import Publisher
from workers.running.rerouting import next_queue
from workers.running.retry import FIRST_DELAY_S, GiveUp, backoff_s, decide, is_continuable, jitter
from workers.running.shared_attempts import SharedAttempts
from workers.taking.kv_budget import KvBudget

log = logging.getLogger(__name__)

#: Pause before a write that Postgres did not take is tried again, in seconds.
REWRITE_AFTER_S = 0.5
#: How long an answer is kept for a Postgres that does not take it. Longer than `rescue` waits after an outage
#: before it takes a job from a live worker, so that a restart of Postgres costs no second generation.
REWRITE_FOR_S = 60.0
#: How long a message waits for an engine that is being started again, or is held while Postgres is away.
NOT_READY_HOLD_S = 2.0


#: Why a job has failed that was aborted for its time; it pays for what it produced.
_TIMED_OUT: Mapping[StopReason, str] = {
    "deadline_exceeded": "Its deadline passed while it ran.",
    "run_timeout": "It ran for longer than its pool allows (max_run_s): ask for a shorter answer.",
}
T = TypeVar("T")


@dataclass(slots=True)
class Execute:
    """Everything one attempt needs.

    Attributes:
        worker_id: this process's row in `workers`: the fence.
        notices: hears of each job that waits no more, right after its claim, and of each that has ended.
        publisher: takes what is made of jobs that are streamed.
        crashes: of the engine.
        payer: pays for what the engine answers; None for an engine of ours.
        kv_budget: what the engine's KV cache has room for; whoever calls `run` has let the job in.
        paid_pools: those that the paid API alone answers.
        ready: set while the engine can answer.
    """

    store: Store
    engine: Engine
    bill: Bill
    worker_id: UUID
    max_attempts: int
    notices: Notices
    publisher: Publisher
    kv_budget: KvBudget
    payer: Payer | None = None
    paid_pools: Collection[str] = ()
    crashes: Crashes = field(default_factory=Crashes)
    running: RunningAttempts = field(default_factory=RunningAttempts)
    ready: threading.Event = field(default_factory=threading.Event)
    _shared: SharedAttempts = field(init=False)

    def __post_init__(self) -> None:
        self._shared = SharedAttempts(self.store, self.worker_id, self.engine.name)

    def takes(self) -> bool:
        """True while one more job may come."""
        return self.ready.is_set() and (self.payer is None or self.payer.is_open)

    def run(self, job_id: UUID, enqueue_no: int) -> Outcome | None:
        """Run one attempt of a job, if there is still one to run.

        Returns: where the job is now; None when another process answers for it.

        A message that finds no engine ready, or no Postgres, is held for a moment, which leaves the rest of the queue
        where it is counted, and then dropped: the job stays queued, and `publish_due` sends another.
        """
        try:
            if self.ready.wait(NOT_READY_HOLD_S):
                return self._run(job_id, enqueue_no)
            log.warning("engine_not_ready", extra={"job_id": show_id(job_id)})
            return Outcome(JobState.QUEUED, EngineUnavailable.code)
        except StoreUnavailable as error:
            log.warning("claim_failed", extra={"job_id": show_id(job_id), "error": str(error)})
            time.sleep(NOT_READY_HOLD_S)
            return Outcome(JobState.QUEUED, error.code)
        finally:
            self.kv_budget.release(job_id)

    def _run(self, job_id: UUID, enqueue_no: int) -> Outcome | None:
        claim = self._shared.claim(job_id, enqueue_no)
        if claim is None:
            log.info("claim_missed", extra={"job_id": show_id(job_id), "enqueue_no": enqueue_no})
            return None
        with self.running.running(claim.request_id):
            self.notices.left(job_id, enqueue_no)
            paid = self._paid(claim)
            return self._attempt(paid) if isinstance(paid, Claim) else paid

    def _paid(self, claim: Claim) -> Claim | Outcome | None:
        """The claim, with the money for its call if it takes any; where the job is when there is nothing to run."""
        try:
            outcome = claim if self.payer is None else self.payer.reserve(claim)
        except StoreUnavailable as error:
            log.warning("money_not_reserved", extra={"job_id": show_id(claim.job_id), "error": str(error)})
            return self._put_off(claim, FIRST_DELAY_S)
        if isinstance(outcome, NotYet):
            return self._put_off(claim, outcome.delay_s)
        if isinstance(outcome, Objection):
            return self._turn_away(claim, outcome)
        if outcome is not None and self.payer is not None and self._is_stopping(claim):
            self.payer.not_called(claim)
            return self._put_off(outcome, FIRST_DELAY_S)
        return outcome

    def _is_stopping(self, claim: Claim) -> bool:
        """True where a call would be paid that nobody waits for, or this worker does not: it came while it waited."""
        return not self.ready.is_set() or self.running.reason(claim.request_id) is not None

    def _put_off(self, claim: Claim, delay_s: float, end: AttemptEnd = NO_CALL) -> Outcome | None:
        """Give a job back whose call is to be made later. It is as good as never taken."""
        delay_s *= 1 + jitter()
        return self._put_back(claim, end, lambda db: store.attempts.hand_back(db, claim, end, delay_s=delay_s))

    def _turn_away(self, claim: Claim, objection: Objection, end: AttemptEnd = NO_CALL) -> Outcome | None:
        """Let a job that the paid API is closed to wait elsewhere, or for it; or fail it, if it cannot."""
        log.warning("overflow_refused", extra={"job_id": show_id(claim.job_id), "code": objection.code})
        end = replace(end, error_code=objection.code, error_message=objection.message)
        if (reroute := next_queue(claim, objection, self.paid_pools, jitter())) is None:
            return self._finish(claim, JobState.FAILED, end)
        return self._put_back(claim, end, lambda db: store.attempts.hand_back(db, claim, end, reroute=reroute))

    def _attempt(self, claim: Claim) -> Outcome | None:
        outcome: Generation | EngineError
        with self._published(claim) as (prefix, on_delta):
            asked = (claim.request_id, claim.messages, claim.sampling, claim.lane.priority, claim.model)
            tier = self.payer.tier(claim) if self.payer else None
            request = GenerationRequest(*asked, prefix, claim.adapter, tier)
            started = time.monotonic()
            self.kv_budget.running(claim.job_id, claim.request_id)
            try:
                outcome = self.engine.generate(request, on_delta)
            except EngineError as error:
                outcome = error
            engine_s = time.monotonic() - started
        if self.payer is not None:
            self.payer.note_outcome(claim, outcome, tier)
        # At once: the next job comes in while this one's answer is written.
        self.kv_budget.release(claim.job_id, outcome if isinstance(outcome, Generation) else None)
        # Only now, when what was made is with its readers: they are told of the end, and read no further.
        if isinstance(outcome, EngineError):
            return self._failed(claim, outcome, engine_s)
        return self._answered(claim, outcome, engine_s)

    @contextmanager
    def _published(self, claim: Claim) -> Iterator[tuple[str, OnDelta | None]]:
        """Publish what the engine makes of a job that is streamed; yields what it must go on from, and its listener."""
        if not claim.stream:
            yield "", None
            return

        def can_continue(text: str) -> bool:
            return self.engine.continues and is_continuable(text, claim.sampling)

        with self.publisher.publishing(claim.job_id, claim.enqueue_no, can_continue) as published:
            yield published

    def _answered(self, claim: Claim, generation: Generation, engine_s: float) -> Outcome | None:
        """Store what the engine returned, by why it stopped."""
        stop = self.running.reason(claim.request_id)
        if generation.finish_reason != "abort":
            return self._finish(claim, JobState.SUCCEEDED, self.bill.of(claim, generation, engine_s, "succeeded"))
        if stop == "cancelled":
            return self._finish(claim, JobState.CANCELLED, self.bill.of(claim, generation, engine_s, "aborted"))
        if stop is not None and (why := _TIMED_OUT.get(stop)):
            return self._finish(claim, JobState.FAILED, self.bill.of(claim, generation, engine_s, "aborted", stop, why))
        # The engine or this worker is going away; the job is as good as never taken.
        wasted = replace(self.bill.of(claim, generation, engine_s, "aborted", stop), kind="waste")
        return self._put_back(claim, wasted, lambda db: store.attempts.hand_back(db, claim, wasted))

    def _failed(self, claim: Claim, error: EngineError, engine_s: float) -> Outcome | None:
        """Try again later or elsewhere, or fail the job."""
        if isinstance(error, EngineCrash):
            self.ready.clear()
            return self._crashed(claim, error, engine_s)
        end = self.bill.of_failure(claim, error, engine_s)
        if isinstance(error, EngineBusy) and claim.attempt == 1:
            # A call that was not let in is none: it is not counted, and the job's start_by binds it as before. Once
            # that binds no more, the attempts do.
            return self._put_off(claim, error.retry_after_s or backoff_s(claim.enqueue_no), end)
        if not isinstance(error, EngineUnavailable):
            return self._try_again(claim, error, end)
        if self.payer is not None:
            return self._turn_away(claim, Objection(error.code, str(error)), end)
        # Our own engine was dead before it came: it is as good as never taken. Nothing else is, until the lease's
        # minder has looked, or the whole queue would be taken for it.
        self.ready.clear()
        return self._put_back(claim, end, lambda db: store.attempts.hand_back(db, claim, end))

    def _try_again(self, claim: Claim, error: EngineError, end: AttemptEnd) -> Outcome | None:
        decision = decide(error, claim.attempt, self.max_attempts, jitter())
        facts = {"job_id": show_id(claim.job_id), "attempt": claim.attempt, "code": error.code}
        log.warning("attempt_failed", extra={**facts, "reason": decision.reason})
        if isinstance(decision, GiveUp):
            return self._finish(claim, JobState.FAILED, end)
        return self._put_back(claim, end, lambda db: store.attempts.retry(db, claim, end, decision.delay_s))

    def _crashed(self, claim: Claim, error: EngineCrash, engine_s: float) -> Outcome | None:
        """Give the job back under suspicion, without counting the attempt; or fail it, if it ran alone.

        What had made no token yet when the engine died is the first suspect, and runs alone from now on. What was under
        way becomes one if an engine dies under it again.
        """
        end = self.bill.of_failure(claim, error, engine_s)
        facts = {"job_id": show_id(claim.job_id), "made_tokens": error.made_tokens, "suspicion": claim.suspicion}
        log.warning("engine_died_under_job", extra=facts)
        if claim.suspicion >= SUSPECT:
            self.crashes.explain()
            self._remember(claim)
            message = "The engine died under this prompt, also when nothing else ran in it: it is refused for a day."
            return self._finish(claim, JobState.FAILED, replace(end, error_message=message))
        suspicion = 1 if error.made_tokens else SUSPECT
        return self._put_back(claim, end, lambda db: store.attempts.hand_back(db, claim, end, suspicion=suspicion))

    def _remember(self, claim: Claim) -> None:
        """Have the doors refuse this prompt. Where Postgres does not take it now, the next crash brings it back."""
        digest = prompt_digest(claim.model, claim.messages, claim.sampling)
        try:
            with self.store.begin() as db:
                store.poison.remember(db, digest, claim.job_id)
        except StoreUnavailable as error:
            log.warning("poison_not_remembered", extra={"job_id": show_id(claim.job_id), "error": str(error)})

    def _finish(self, claim: Claim, target: JobState, end: AttemptEnd) -> Outcome | None:
        alone = partial(self._in_one, lambda db: store.attempts.finish(db, claim, target, end))
        once = alone if claim.has_webhook else partial(self._shared.finish, claim, target, end)
        if not self._insist(claim, once):
            return None
        log.info("job_ended", extra={"job_id": show_id(claim.job_id), "state": str(target), "engine_s": end.engine_s})
        self.notices.ended(claim.job_id, has_webhook=claim.has_webhook)
        if claim.stream:
            self.publisher.forget(claim.job_id)
        return Outcome(target, end.error_code)

    def _put_back(
        self, claim: Claim, end: AttemptEnd, write: Callable[[Connection], JobState | None]
    ) -> Outcome | None:
        state = self._insist(claim, partial(self._in_one, write))
        return Outcome(state, end.error_code) if state else None

    def _in_one(self, write: Callable[[Connection], T]) -> T:
        with self.store.begin() as db:
            return write(db)

    def _insist(self, claim: Claim, write: Callable[[], T]) -> T | None:
        """Write under the claim, through an outage of Postgres if need be; nothing when the claim holds no more."""
        give_up_at = time.monotonic() + REWRITE_FOR_S
        while True:
            try:
                held = write()
            except StoreUnavailable:
                if time.monotonic() > give_up_at:
                    log.error("result_dropped", extra={"job_id": show_id(claim.job_id), "attempt": claim.attempt})
                    return None
                time.sleep(REWRITE_AFTER_S)
            else:
                if not held:
                    log.warning("claim_lost", extra={"job_id": show_id(claim.job_id), "attempt": claim.attempt})
                return held
