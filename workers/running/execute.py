"""The use case of a worker: claim a job, have the engine answer it, store the answer with its bill.

Knows no Celery: a task calls `Execute.run`. Delivery is at least once, so the claim fences every step.
"""

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from headrace import hops
from headrace.domain.attempts import ApiTier, AttemptEnd, Claim, HandBack, Outcome, Reroute
from headrace.domain.ids import show_id
from headrace.domain.queues import OVERFLOW, Overflow, Route, queue_name
from headrace.domain.states import SUSPECT, JobState
from headrace.errors import (
    EngineBusy,
    EngineCrash,
    EngineError,
    EngineUnavailable,
    PayloadTooNew,
    PayloadUnreadable,
    StoreUnavailable,
    TooFewAnswers,
    Unavailable,
    WorkerFault,
)
from headrace.policies.overflow import Objection
from headrace.policies.pricing import Tariff
from headrace.policies.retries import FIRST_DELAY_S, GiveUp, RetryRules, backoff_s, decide, is_continuable, jitter
from headrace.store.jobs.queued import TURNED_AWAY
from workers.compressing import Compressor
from workers.engines.base import Engine, Generation, GenerationRequest, OnDelta
from workers.matching import LookupHold
from workers.paid import NO_CALL, NotYet, Payer
from workers.running.bill import Answered, Bill
from workers.running.cascading import Cascading, without_judged
from workers.running.publisher import Publisher
from workers.running.recorder import ELSEWHERE, Claimed, Ending, Recorder, ended
from workers.running.worker_state import StopReason, WorkerState
from workers.taking.kv_budget import KvBudget

log = logging.getLogger(__name__)


#: Seconds that a message waits for an engine that restarts, or is held during a Postgres outage.
NOT_READY_HOLD_S = 2.0
#: The longest pause in seconds after which a job is tried again whose prompt was too new for a worker.
NEWER_AFTER_S = 4.0
#: How long past its `start_by` such a job waits for a newer worker if earlier attempts have counted.
NEWER_WITHIN = timedelta(minutes=10)

#: Judges nothing.
NO_CASCADE = Cascading({}, {})

#: The error messages of jobs that were aborted at a time limit. Such a job pays for what it produced.
_TIMED_OUT: Mapping[StopReason, str] = {
    "deadline_exceeded": "Its deadline passed while it ran.",
    "run_timeout": "It ran for longer than its pool allows (max_run_s): ask for a shorter answer.",
}


@dataclass(slots=True)
class Execute:
    """Runs attempts.

    Attributes:
        kv_budget: the room in the engine's KV cache. The caller of `run` has reserved the job's room.
        publisher: publishes the output of streamed jobs.
        shares_prefixes: whether apps share the engine's prefix cache. Otherwise each finds its own prompts alone.
        payer: pays for calls of the paid API; None for a local engine.
        hold: keeps a new job from its claim until the semantic cache has looked it up.
    """

    state: WorkerState
    engine: Engine
    kv_budget: KvBudget
    publisher: Publisher
    recorder: Recorder
    bill: Bill
    rules: RetryRules
    shares_prefixes: bool = False
    payer: Payer | None = None
    hold: LookupHold = field(default_factory=LookupHold)
    compressor: Compressor | None = None
    cascading: Cascading = NO_CASCADE

    def takes(self) -> bool:
        """True while the worker can take another job."""
        return self.state.takes() and (self.payer is None or self.payer.is_open)

    def expect(self, asked: Mapping[UUID, int]) -> None:
        """Claim jobs that will be run in a moment, `{job id: enqueue_no}`. Not where something may hold them back."""
        if self.payer is None:
            self.recorder.expect({job: no for job, no in asked.items() if not self.hold.may_hold(job)})

    def run(self, job_id: UUID, enqueue_no: int) -> Ending:
        """Run one attempt of a job, if there is still one to run. Returns: its outcome, once that is on disk.

        Without a ready engine or without Postgres, the message is held for a moment and then dropped. Holding it keeps
        this worker from emptying the queue. The job stays queued, and `publish_due` sends another message. A job that
        is claimed already goes to the engine in any case: it is handed back if the engine is dead.
        """
        try:
            if self.recorder.expects(job_id, enqueue_no) or self.state.ready.wait(NOT_READY_HOLD_S):
                return self._run(job_id, enqueue_no)
            log.warning("engine_not_ready", extra={"job_id": show_id(job_id)})
            return ended(Outcome(JobState.QUEUED, EngineUnavailable.code))
        except StoreUnavailable as error:
            log.warning("claim_failed", extra={"job_id": show_id(job_id), "error": str(error)})
            time.sleep(NOT_READY_HOLD_S)
            return ended(Outcome(JobState.QUEUED, error.code))
        finally:
            self._release(job_id)

    def _run(self, job_id: UUID, enqueue_no: int) -> Ending:
        hops.reach("thread", job_id)
        self.hold.wait(job_id)
        claimed = self.recorder.claim(job_id, enqueue_no)
        if claimed is None:
            return ended(ELSEWHERE)
        claim, on_disk = claimed
        hops.reach("claim", job_id)
        if claim.unread is not None:
            on_disk.result()
            return self._unread(claim, claim.unread)
        with ExitStack() as running:
            running.enter_context(self.state.attempts.running(claim.request_id))
            on_disk.add_done_callback(partial(self._note_commit, claim))
            is_confined = claim.app_id in self.state.confined
            if self.payer is not None or claim.sampling.compression is not None or is_confined:
                # What is paid for or asked of other workers cannot be taken back.
                on_disk.result()
            if is_confined and (held := self.recorder.enter(claim)) is not None:
                ending = self.recorder.hand_back(claim, NO_CALL, held)
            else:
                # A price that changes during the call must not make it dearer than what is reserved for it.
                bill = self.bill.of_one_attempt()
                paid = self._paid(claim, bill.tariff)
                ending = self._attempt_or_fault(Claimed(paid, on_disk), bill) if isinstance(paid, Claim) else paid
            # A worker that stops waits for the end, as for a job that runs.
            still_running = running.pop_all()
            ending.add_done_callback(lambda _: still_running.close())
            return ending

    def _unread(self, claim: Claim, error: PayloadUnreadable) -> Ending:
        """Leave a job that a newer release wrote to a newer worker, uncounted. Fail one that no worker can read.

        `enqueue_due` keeps the job in Postgres until a worker that reads it is alive. While such workers and this one
        take from one queue, the pauses bound how often this one meets the job.
        """
        self.state.unread.add(error.code)
        log.warning(
            "payload_not_read", extra={"job_id": show_id(claim.job_id), "code": error.code, "error": str(error)}
        )
        self.recorder.has_left(claim)
        end = replace(NO_CALL, error_code=error.code, error_message=str(error))
        # After a counted attempt `start_by` no longer bounds the job's wait.
        is_over = claim.attempt > 1 and datetime.now(UTC) > claim.start_by + NEWER_WITHIN
        if not isinstance(error, PayloadTooNew) or is_over:
            return self._fail(claim, end)
        delay_s = min(backoff_s(claim.enqueue_no), NEWER_AFTER_S) * (1 + jitter())
        return self.recorder.hand_back(claim, end, HandBack(delay_s=delay_s, needs_version=error.version))

    def _note_commit(self, claim: Claim, on_disk: Future[None]) -> None:
        """Let the job's queue forget it once its claim is on disk, or abort the attempt if that has failed.

        If the claim were undone after the queue's books forgot the job, no sweep would look at the job again.
        """
        if on_disk.exception() is None:
            self.recorder.has_left(claim)
        elif self.state.attempts.stop(claim.request_id, "claim_lost"):
            self.engine.abort(claim.request_id)

    def _paid(self, claim: Claim, tariff: Tariff) -> Claim | Ending:
        """Reserve the money for the call, if it costs any. Returns: the claim; the job's end if nothing runs."""
        try:
            outcome = claim if self.payer is None else self.payer.reserve(claim, tariff)
        except StoreUnavailable as error:
            log.warning("money_not_reserved", extra={"job_id": show_id(claim.job_id), "error": str(error)})
            return self._put_off(claim, FIRST_DELAY_S)
        if isinstance(outcome, NotYet):
            return self._put_off(claim, outcome.delay_s)
        if isinstance(outcome, Objection):
            return self._turn_away(claim, outcome)
        if outcome is None:
            return ended(ELSEWHERE)
        if self.payer is not None and self._is_stopping(claim):
            self.payer.not_called(claim)
            return self._put_off(outcome, FIRST_DELAY_S)
        return outcome

    def _is_stopping(self, claim: Claim) -> bool:
        """True if, during the wait for the money, the worker began to drain or the job got a reason to stop."""
        return not self.state.ready.is_set() or self.state.attempts.reason(claim.request_id) is not None

    def _put_off(self, claim: Claim, delay_s: float, end: AttemptEnd = NO_CALL) -> Ending:
        """Hand a job back whose call must be made later, as if it had never been taken."""
        delay_s *= 1 + jitter()
        return self.recorder.hand_back(claim, end, HandBack(delay_s=delay_s))

    def _turn_away(self, claim: Claim, objection: Objection, end: AttemptEnd = NO_CALL) -> Ending:
        """Requeue a job that the paid API cannot take, in its own pool or for a later call; otherwise fail it."""
        log.warning("overflow_refused", extra={"job_id": show_id(claim.job_id), "code": objection.code})
        end = replace(end, error_code=objection.code, error_message=objection.message)
        if claim.stand_by is not None:
            return self._fail(claim, end)
        if (reroute := next_queue(claim, objection, self.rules.paid_pools, jitter())) is None:
            return self._fail(claim, end)
        return self.recorder.hand_back(claim, end, HandBack(reroute=reroute))

    def _fail(self, claim: Claim, end: AttemptEnd) -> Ending:
        """Fail the job, unless it has an answer of an earlier pool, which then stands."""
        if claim.stand_by is None:
            return self.recorder.finish(claim, JobState.FAILED, end)
        return self.recorder.stand_in(claim, end, end.error_code or "failed")

    def _attempt_or_fault(self, claimed: Claimed, bill: Bill) -> Ending:
        """Run the attempt. After a defect, end it as failed: the job would else count as lost under a live worker."""
        try:
            return self._attempt(claimed, bill)
        except Unavailable:
            raise
        except Exception as error:
            claim, fault = claimed.claim, WorkerFault(f"The worker met a defect ({type(error).__name__}).")
            log.exception("attempt_fault", extra={"job_id": show_id(claim.job_id)})
            fault.may_be_billed = self.payer is not None
            return self._try_again(claim, fault, bill.of_failure(claim, fault, 0.0))

    def _attempt(self, claimed: Claimed, bill: Bill) -> Ending:
        claim, on_disk = claimed
        tier = self.payer.tier(claim, bill.tariff) if self.payer else None
        try:
            claim = self.compressor.compress(claim) if self.compressor else claim
            outcome, engine_s = self._generate(Claimed(self.cascading.asked(claim), on_disk), tier)
        except EngineCrash as error:
            outcome, engine_s = error, 0.0
        if self.payer is not None:
            self.payer.note_outcome(claim, outcome, tier)
        # Release now, so that the next job starts while this answer is written.
        self._release(claim.job_id, outcome)
        if isinstance(outcome, EngineError):
            return self._failed(claim, outcome, bill.of_failure(claim, outcome, engine_s))
        return self._answered(Answered(claim, outcome, engine_s), bill)

    def _generate(self, claimed: Claimed, tier: ApiTier | None) -> tuple[Generation | EngineError, float]:
        """Answer one claim. Its output is published before this returns, and the claim is on disk.

        Args: tier: the paid API's service tier. Returns: the answer or the error, and how long it took, in seconds.
        Raises: StoreUnavailable: the claim was not committed; the answer is dropped.
        """
        outcome: Generation | EngineError
        claim, on_disk = claimed
        with self._published(claimed) as (prefix, on_delta):
            hops.reach("begin", claim.job_id)
            request = GenerationRequest(
                request_id=claim.request_id,
                messages=claim.sent,
                sampling=claim.sampling,
                priority=claim.lane.priority,
                model=claim.model,
                prefix=prefix,
                adapter=claim.adapter,
                tier=tier,
                cache_salt=None if self.shares_prefixes else claim.app_id.hex,
            )
            started = time.monotonic()
            self.kv_budget.running(claim.job_id, claim.request_id)
            try:
                outcome = self.engine.generate(request, on_delta)
            except EngineError as error:
                outcome = error
            engine_s = time.monotonic() - started
            on_disk.result()
        return outcome, engine_s

    def _release(self, job_id: UUID, outcome: Generation | EngineError | None = None) -> None:
        """Release the job's room. Args: outcome: the engine's answer or error, if the job reached the engine."""
        self.kv_budget.release(job_id, outcome if isinstance(outcome, Generation) else None)

    @contextmanager
    def _published(self, claimed: Claimed) -> Iterator[tuple[str, OnDelta | None]]:
        """Publish a streamed job's output. Yields: the text to continue, and the listener for new pieces."""
        claim, on_disk = claimed
        if not claim.stream:
            yield "", None
            return

        def can_continue(text: str) -> bool:
            return self.engine.continues and is_continuable(text, claim.sampling)

        with self.publisher.publishing(claim.job_id, claim.enqueue_no, can_continue, on_disk) as published:
            yield published

    def _answered(self, answered: Answered, bill: Bill) -> Ending:
        """Store the engine's answer; the reason for its end decides how."""
        claim = answered.claim
        stop = self.state.attempts.reason(claim.request_id)
        if answered.generation.finish_reason != "abort":
            return self._judged(answered, bill)
        if stop == "cancelled":
            return self.recorder.finish(claim, JobState.CANCELLED, bill.of(answered, "aborted"))
        if stop is not None and (why := _TIMED_OUT.get(stop)):
            return self._fail(claim, bill.of(answered, "aborted", stop, why))
        # The engine or this worker is stopping: the job is handed back as if it had never been taken.
        return self.recorder.hand_back(claim, replace(bill.of(answered, "aborted", stop), kind="waste"))

    def _judged(self, answered: Answered, bill: Bill) -> Ending:
        """End the job with its answer, or send it on to a better pool."""
        claim = answered.claim
        to, is_unchecked = self.cascading.judge(claim, answered.generation)
        if is_unchecked:
            self.state.unchecked.add()
        given = replace(answered, generation=without_judged(claim, answered.generation))
        end = bill.of(given, "succeeded")
        if claim.shadow_of is not None:
            end = replace(end, kind="waste", reason="shadow", saved_usd=None)
        if to is None:
            return self.recorder.finish(claim, JobState.SUCCEEDED, end)
        return self.recorder.escalate(claim, end, to)

    def _failed(self, claim: Claim, error: EngineError, end: AttemptEnd) -> Ending:
        """Try again later or elsewhere, or fail the job. Args: end: the attempt's bill."""
        if isinstance(error, EngineCrash):
            self.state.ready.clear()
            return self._crashed(claim, error, end)
        if isinstance(error, EngineBusy) and claim.attempt == 1:
            # A call that was refused for capacity does not count as an attempt, and the job's start_by still bounds it.
            # From the second attempt on, start_by no longer applies and the number of attempts is the bound.
            return self._put_off(claim, error.retry_after_s or backoff_s(claim.enqueue_no), end)
        if not isinstance(error, EngineUnavailable | TooFewAnswers):
            return self._try_again(claim, error, end)
        if self.payer is not None:
            return self._turn_away(claim, Objection(error.code, str(error)), end)
        # The local engine was dead before the job came: hand the job back as if it had never been taken. Take no other
        # job until the engine minder has checked, or this worker would take the whole queue for a dead engine.
        self.state.ready.clear()
        return self.recorder.hand_back(claim, end)

    def _try_again(self, claim: Claim, error: EngineError, end: AttemptEnd) -> Ending:
        decision = decide(error, claim.attempt, self.rules.max_attempts, jitter())
        facts = {"job_id": show_id(claim.job_id), "attempt": claim.attempt, "code": error.code}
        log.warning("attempt_failed", extra={**facts, "reason": decision.reason})
        if isinstance(decision, GiveUp):
            return self._fail(claim, end)
        return self.recorder.retry(claim, end, decision.delay_s)

    def _crashed(self, claim: Claim, error: EngineCrash, end: AttemptEnd) -> Ending:
        """Hand the job back under suspicion, without counting the attempt. Fail it if it ran alone.

        A job without a token when the engine died is a suspect, and runs alone from now on. A job with tokens becomes
        a suspect if an engine dies under it again.
        """
        facts = {"job_id": show_id(claim.job_id), "made_tokens": error.made_tokens, "suspicion": claim.suspicion}
        log.warning("engine_died_under_job", extra=facts)
        if claim.suspicion >= SUSPECT or claim.app_id in self.state.confined:
            # The prompts of a confined app have killed engines before, so its jobs are to blame and not this worker.
            self.state.crashes.explain()
        if claim.suspicion >= SUSPECT:
            self.recorder.poison(claim)
            message = "The engine died under this prompt, also when nothing else ran in it: it is refused for a day."
            return self._fail(claim, replace(end, error_message=message))
        suspicion = 1 if error.made_tokens else SUSPECT
        return self.recorder.hand_back(claim, end, HandBack(suspicion=suspicion))


#: Objections that may pass after a while.
_PASSING = frozenset({"budget_exceeded", "overflow_unavailable", EngineUnavailable.code})


def next_queue(claim: Claim, objection: Objection, paid_pools: Collection[str], longer: float = 0.0) -> Reroute | None:
    """Return the job's own pool. If only the paid API answers that pool, the job waits, until its `start_by` at most.

    Args:
        paid_pools: the pools that only the paid API answers.
        longer: the share by which its wait is longer; see `retries.jitter`.
    Returns: None if the job fails: it allows only the paid API, waiting cannot help, or `start_by` no longer bounds
        the wait because an attempt has counted.
    """
    if claim.overflow is Overflow.ONLY:
        return None
    if claim.pool not in paid_pools:
        return Reroute(queue_name(claim.pool, claim.lane), Route.POOL, f"{TURNED_AWAY}{objection.message}")
    if objection.code not in _PASSING or claim.attempt > 1:
        return None
    # Each wait raises `enqueue_no`, so it is longer than the last.
    delay_s = backoff_s(1 + claim.enqueue_no) * (1 + longer)
    return Reroute(queue_name(OVERFLOW, claim.lane), Route.OVERFLOW, f"waits: {objection.message}", delay_s)
