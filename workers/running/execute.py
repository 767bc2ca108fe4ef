"""One job of a worker, from its message to its ledger entry: claim, run, end. In the job's own thread.

`KvTaker` (workers/taking/taker.py) has taken the message and reserved the job's room; a task of Celery calls
`Execute.run`. Knows no Celery. Delivery is at least once, so the claim fences every write.

The claim does not wait for the disk, so a crash of Postgres may forget it. An end is committed later, and Postgres
writes its log in order: with an end, the claim is on disk. The queue's books keep the job until its claim is
(`Notices`), so that `publish_due` finds a job whose claim was forgotten. It raises the job's `enqueue_no` before
another worker gets it, so that no end and no piece of the forgotten claim counts any more.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from headrace.batching import Batching
from headrace.domain.attempts import AS_BEFORE, ApiTier, AttemptEnd, Claim, HandBack, Outcome, Reroute
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
    StoreBusy,
    StoreUnavailable,
    TooFewAnswers,
    WorkerFault,
)
from headrace.policies.overflow import Objection
from headrace.policies.pricing import Tariff
from headrace.policies.retries import FIRST_DELAY_S, GiveUp, RetryRules, backoff_s, decide, is_continuable, jitter
from headrace.store import Store, attempts, escalations
from headrace.store.jobs.queued import TURNED_AWAY
from workers.compressing import Compressor
from workers.confining import Confining
from workers.engines.base import Engine, Generation, GenerationRequest, OnDelta
from workers.matching import LookupHold
from workers.paid import NO_CALL, NotYet, Payer
from workers.running.bill import Answered, Bill
from workers.running.cascading import Cascading, without_judged
from workers.running.publisher import Notices, Publisher
from workers.running.worker_state import StopReason, WorkerState
from workers.taking.kv_budget import KvBudget

log = logging.getLogger(__name__)

Ask = TypeVar("Ask")
Reply = TypeVar("Reply")


#: Seconds before a write that Postgres did not accept is retried, and before one whose row is locked is.
REWRITE_AFTER_S, LOCKED_FOR_S = 0.5, 5.0
#: Seconds for which the write of an end is retried: an answer that is dropped is made, and on the paid API paid, again.
#: A session that locks `jobs` for longer is rare. Must be longer than `rescue` waits after an outage before it takes a
#: job from a live worker.
REWRITE_FOR_S = 600.0
#: The most jobs of one statement, and of an end that shares one the most characters: a large one takes Postgres long.
MOST_TOGETHER, SMALL_CHARS = 64, 65_536
#: Seconds that `close` waits for a statement under way: longer than Postgres may take for one.
CLOSE_TIMEOUT_S = 10.0
#: Seconds that a message waits for an engine that restarts, or is held during a Postgres outage.
NOT_READY_HOLD_S = 2.0
#: The longest pause in seconds after which a job is tried again whose prompt was too new for a worker.
NEWER_AFTER_S = 4.0
#: How long past its `start_by` such a job waits for a newer worker if earlier attempts have counted.
NEWER_WITHIN = timedelta(minutes=10)

#: This process has no outcome to show: another has, or the job is gone.
ELSEWHERE = Outcome(JobState.RUNNING)
#: How an attempt ends: with the job, in this state; or by a write of its own, which returns the job's state, or None if
#: the claim no longer holds.
How = JobState | Callable[[Connection], JobState | None]
#: Before an engine gets a claimed job, in the job's thread, in no transaction: returns what the engine gets.
BeforeEngine: TypeAlias = Callable[[Claim], Claim]

#: Judges nothing.
NO_CASCADE = Cascading({}, {})

#: The error messages of jobs that were aborted at a time limit. Such a job pays for what it produced.
_TIMED_OUT: Mapping[StopReason, str] = {
    "deadline_exceeded": "Its deadline passed while it ran.",
    "run_timeout": "It ran for longer than its pool allows (max_run_s): ask for a shorter answer.",
}


@dataclass(slots=True)
class Execute:
    """Runs attempts. Safe for many threads.

    Attributes:
        kv_budget: the room in the engine's KV cache. `KvTaker` has reserved the job's room.
        publisher: publishes the output of streamed jobs.
        notices: tell Redis of claims and ends.
        shares_prefixes: whether apps share the engine's prefix cache. Otherwise each finds its own prompts alone.
        payer: pays for calls of the paid API; None for a local engine.
        hold: keeps a new job from its claim until the semantic cache has looked it up.
    """

    state: WorkerState
    store: Store
    engine: Engine
    kv_budget: KvBudget
    publisher: Publisher
    notices: Notices
    bill: Bill
    rules: RetryRules
    confining: Confining
    shares_prefixes: bool = False
    payer: Payer | None = None
    lookup_hold: LookupHold = field(default_factory=LookupHold)
    compressor: Compressor | None = None
    cascading: Cascading = NO_CASCADE
    before_engine: tuple[BeforeEngine, ...] = ()
    _is_closing: threading.Event = field(init=False, default_factory=threading.Event)
    #: Claims and successes that come together share a statement: 1,564 short jobs a second in place of 719
    #: (`benchmarks/drain.py`, two cores, 2026-12-02).
    _claims: Batching[tuple[UUID, int], Any] = field(init=False)
    _successes: Batching[tuple[Claim, AttemptEnd], JobState | None] = field(init=False)

    def __post_init__(self) -> None:
        self._claims = Batching(self._claim_all, MOST_TOGETHER)
        self._successes = Batching(self._succeed, MOST_TOGETHER)

    def takes(self) -> bool:
        """True while the worker can take another job."""
        return self.state.takes() and (self.payer is None or self.payer.is_open)

    def close(self) -> None:
        """Drop the ends that cannot be written now. Waits for those that are being written."""
        self._is_closing.set()
        self.state.attempts.wait_until_idle(CLOSE_TIMEOUT_S)

    def run(self, job_id: UUID, enqueue_no: int) -> Outcome:
        """Run one attempt of a job, if there is still one to run. Returns: its outcome, once that is on disk.

        Without a ready engine or without Postgres, the message is held for a moment and then dropped. Holding it keeps
        this worker from emptying the queue. The job stays queued, and `publish_due` sends another message.
        """
        with ExitStack() as room:
            # Once: where an end waits long for Postgres, this worker may have taken the same job again.
            room.callback(self.kv_budget.release, job_id)
            if not self.state.ready.wait(NOT_READY_HOLD_S):
                log.warning("engine_not_ready", extra={"job_id": show_id(job_id)})
                return Outcome(JobState.QUEUED, EngineUnavailable.code)
            self.lookup_hold.wait(job_id)
            try:
                claim = self._claim(job_id, enqueue_no)
            except StoreUnavailable as error:
                log.warning("claim_failed", extra={"job_id": show_id(job_id), "error": str(error)})
                time.sleep(NOT_READY_HOLD_S)
                return Outcome(JobState.QUEUED, error.code)
            if claim is None:
                log.info("claim_missed", extra={"job_id": show_id(job_id), "enqueue_no": enqueue_no})
                return ELSEWHERE
            with self.state.attempts.running(claim.request_id):
                return self._run(claim, room)

    # Claim.

    def _claim(self, job_id: UUID, enqueue_no: int) -> Claim | None:
        """Claim a queued job. None if it cannot be claimed. Raises: StoreUnavailable."""
        row = _together(self._claims, (job_id, enqueue_no), self._claim_all, key=job_id)
        return None if row is None else attempts.claim_of(row)

    def _claim_all(self, messages: Sequence[tuple[UUID, int]]) -> list[Any]:
        rows = attempts.claim_all(self.store, dict(messages), self.state.id, self.engine.name)
        return [rows.get(job_id) for job_id, _ in messages]

    # Run.

    def _run(self, claim: Claim, room: ExitStack) -> Outcome:
        """Run a claimed job. After a defect, end it as failed: it would else count as lost under a live worker."""
        self.notices.claimed(claim.job_id, claim.enqueue_no)
        if claim.unread is not None:
            return self._unread(claim, claim.unread)
        if claim.app_id in self.state.confined and (held := self.confining.enter(claim)) is not None:
            return self._hand_back(claim, NO_CALL, held)
        # A price that changes during the call must not make it dearer than what is reserved for it.
        bill = self.bill.of_one_attempt()
        paid = self._paid(claim, bill.tariff)
        if not isinstance(paid, Claim):
            return paid
        try:
            return self._attempt(paid, bill, room)
        except Exception as error:
            fault = WorkerFault(f"The worker met a defect ({type(error).__name__}).")
            log.exception("attempt_fault", extra={"job_id": show_id(claim.job_id)})
            fault.may_be_billed = self.payer is not None
            return self._try_again(paid, fault, bill.of_failure(paid, fault, 0.0))

    def _unread(self, claim: Claim, error: PayloadUnreadable) -> Outcome:
        """Leave a job that a newer release wrote to a newer worker, uncounted. Fail one that no worker can read.

        `enqueue_due` keeps the job in Postgres until a worker that reads it is alive. While such workers and this one
        take from one queue, the pauses bound how often this one meets the job.
        """
        self.state.unread.add(error.code)
        log.warning(
            "payload_not_read", extra={"job_id": show_id(claim.job_id), "code": error.code, "error": str(error)}
        )
        end = replace(NO_CALL, error_code=error.code, error_message=str(error))
        # After a counted attempt `start_by` no longer bounds the job's wait.
        is_over = claim.attempt > 1 and datetime.now(UTC) > claim.start_by + NEWER_WITHIN
        if not isinstance(error, PayloadTooNew) or is_over:
            return self._fail(claim, end)
        delay_s = min(backoff_s(claim.enqueue_no), NEWER_AFTER_S) * (1 + jitter())
        return self._hand_back(claim, end, HandBack(delay_s=delay_s, needs_version=error.version))

    def _paid(self, claim: Claim, tariff: Tariff) -> Claim | Outcome:
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
            return ELSEWHERE
        if self.payer is not None and self._is_stopping(claim):
            self.payer.not_called(claim)
            return self._put_off(outcome, FIRST_DELAY_S)
        return outcome

    def _is_stopping(self, claim: Claim) -> bool:
        """True if, during the wait for the money, the worker began to drain or the job got a reason to stop."""
        return not self.state.ready.is_set() or self.state.attempts.reason(claim.request_id) is not None

    def _put_off(self, claim: Claim, delay_s: float, end: AttemptEnd = NO_CALL) -> Outcome:
        """Hand a job back whose call must be made later, as if it had never been taken."""
        delay_s *= 1 + jitter()
        return self._hand_back(claim, end, HandBack(delay_s=delay_s))

    def _turn_away(self, claim: Claim, objection: Objection, end: AttemptEnd = NO_CALL) -> Outcome:
        """Requeue a job that the paid API cannot take, in its own pool or for a later call; otherwise fail it."""
        log.warning("overflow_refused", extra={"job_id": show_id(claim.job_id), "code": objection.code})
        end = replace(end, error_code=objection.code, error_message=objection.message)
        if claim.stand_by is not None:
            return self._fail(claim, end)
        if (reroute := next_queue(claim, objection, self.rules.paid_pools, jitter())) is None:
            return self._fail(claim, end)
        return self._hand_back(claim, end, HandBack(reroute=reroute))

    def _fail(self, claim: Claim, end: AttemptEnd) -> Outcome:
        """Fail the job, unless it has an answer of an earlier pool, which then stands."""
        if claim.stand_by is None:
            return self._end(claim, end, JobState.FAILED)
        log.info("kept_answer_stands", extra={"job_id": show_id(claim.job_id), "code": end.error_code})
        return self._end(claim, end, lambda db: escalations.stand_in(db, claim, end, end.error_code or "failed"))

    def _attempt(self, claim: Claim, bill: Bill, room: ExitStack) -> Outcome:
        tier = self.payer.tier(claim, bill.tariff) if self.payer else None
        claim = self.compressor.compress(claim) if self.compressor else claim
        for before in self.before_engine:
            claim = before(claim)
        outcome, engine_s = self._generate(self.cascading.asked(claim), tier)
        if self.payer is not None:
            self.payer.note_outcome(claim, outcome, tier)
        # Release now, so that the next job starts while this answer is written.
        room.pop_all()
        self.kv_budget.release(claim.job_id, outcome if isinstance(outcome, Generation) else None)
        if isinstance(outcome, EngineError):
            return self._failed(claim, outcome, bill.of_failure(claim, outcome, engine_s))
        return self._answered(Answered(claim, outcome, engine_s), bill)

    def _generate(self, claim: Claim, tier: ApiTier | None) -> tuple[Generation | EngineError, float]:
        """Answer one claim. Its output is published before this returns.

        Args: tier: the paid API's service tier. Returns: the answer or the error, and how long it took, in seconds.
        """
        outcome: Generation | EngineError
        with self._published(claim) as (prefix, on_delta):
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
        return outcome, engine_s

    @contextmanager
    def _published(self, claim: Claim) -> Iterator[tuple[str, OnDelta | None]]:
        """Publish a streamed job's output. Yields: the text to continue, and the listener for new pieces."""
        if not claim.stream:
            yield "", None
            return

        def can_continue(text: str) -> bool:
            return self.engine.continues and is_continuable(text, claim.sampling)

        with self.publisher.publishing(claim.job_id, claim.enqueue_no, can_continue) as published:
            yield published

    # End.

    def _answered(self, answered: Answered, bill: Bill) -> Outcome:
        """Store the engine's answer; the reason for its end decides how."""
        claim = answered.claim
        stop = self.state.attempts.reason(claim.request_id)
        if answered.generation.finish_reason != "abort":
            return self._judged(answered, bill)
        if stop == "cancelled":
            return self._end(claim, bill.of(answered, "aborted"), JobState.CANCELLED)
        if stop is not None and (why := _TIMED_OUT.get(stop)):
            return self._fail(claim, bill.of(answered, "aborted", stop, why))
        # The engine or this worker is stopping: the job is handed back as if it had never been taken.
        return self._hand_back(claim, replace(bill.of(answered, "aborted", stop), kind="waste"))

    def _judged(self, answered: Answered, bill: Bill) -> Outcome:
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
            return self._end(claim, end, JobState.SUCCEEDED)
        log.info("job_escalated", extra={"job_id": show_id(claim.job_id), "signal": to.signal, "pool": to.pool})
        return self._end(claim, end, lambda db: escalations.escalate(db, claim, end, to))

    def _failed(self, claim: Claim, error: EngineError, end: AttemptEnd) -> Outcome:
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
        return self._hand_back(claim, end)

    def _try_again(self, claim: Claim, error: EngineError, end: AttemptEnd) -> Outcome:
        decision = decide(error, claim.attempt, self.rules.max_attempts, jitter())
        facts = {"job_id": show_id(claim.job_id), "attempt": claim.attempt, "code": error.code}
        log.warning("attempt_failed", extra={**facts, "reason": decision.reason})
        if isinstance(decision, GiveUp):
            return self._fail(claim, end)
        return self._end(claim, end, lambda db: attempts.retry(db, claim, end, decision.delay_s))

    def _crashed(self, claim: Claim, error: EngineCrash, end: AttemptEnd) -> Outcome:
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
            self.confining.poison(claim)
            message = "The engine died under this prompt, also when nothing else ran in it: it is refused for a day."
            return self._fail(claim, replace(end, error_message=message))
        suspicion = 1 if error.made_tokens else SUSPECT
        return self._hand_back(claim, end, HandBack(suspicion=suspicion))

    def _hand_back(self, claim: Claim, end: AttemptEnd, how: HandBack = AS_BEFORE) -> Outcome:
        """Hand the job back as if it had never been taken; see `store.attempts.hand_back`."""
        return self._end(claim, end, lambda db: attempts.hand_back(db, claim, end, how))

    def _end(self, claim: Claim, end: AttemptEnd, how: How) -> Outcome:
        """Write how the attempt ended, and tell those who wait for the job. Retries through an outage of Postgres."""
        facts = {"job_id": show_id(claim.job_id), "attempt": claim.attempt}
        give_up_at = time.monotonic() + REWRITE_FOR_S
        while True:
            try:
                state = self._write(claim, end, how)
                break
            except StoreUnavailable as error:
                pause_s = LOCKED_FOR_S if isinstance(error, StoreBusy) else REWRITE_AFTER_S
                if self._is_closing.wait(pause_s) or time.monotonic() > give_up_at:
                    log.error("result_dropped", extra=facts)
                    return ELSEWHERE
            except Exception:
                log.exception("end_not_written", extra=facts)
                return ELSEWHERE
        if state is None:
            log.warning("claim_lost", extra=facts)
            return ELSEWHERE
        if state.is_terminal:
            log.info("job_ended", extra={**facts, "state": str(state), "engine_s": end.engine_s})
            self.notices.ended(claim.job_id, has_webhook=claim.has_webhook)
            if claim.stream:
                self.publisher.forget(claim.job_id)
        return Outcome(state, end.error_code)

    def _write(self, claim: Claim, end: AttemptEnd, how: How) -> JobState | None:
        """Write an end once. Returns: the job's state; None if the claim no longer holds. Raises: StoreUnavailable."""
        if not isinstance(how, JobState):
            with self.store.begin() as db:
                return how(db)
        if claim.has_webhook or claim.route is Route.OVERFLOW:
            # Then it is several statements, which need one transaction.
            with self.store.begin() as db:
                done = attempts.finish_all(db, how, [(claim, end)])
            return how if done else None
        if how is JobState.SUCCEEDED and _is_small(end):
            return _together(self._successes, (claim, end), self._succeed)
        return how if attempts.finish_all(self.store, how, [(claim, end)]) else None

    def _succeed(self, ends: Sequence[tuple[Claim, AttemptEnd]]) -> list[JobState | None]:
        done = attempts.finish_all(self.store, JobState.SUCCEEDED, ends)
        return [JobState.SUCCEEDED if claim.job_id in done else None for claim, _ in ends]


def _together(
    batching: Batching[Ask, Reply], ask: Ask, alone: Callable[[Sequence[Ask]], Sequence[Reply]], key: UUID | None = None
) -> Reply:
    """Have an ask served with those of other threads; alone, if one of them was refused or its row is locked."""
    try:
        return batching.call(ask, key)
    except StoreUnavailable as error:
        if not isinstance(error, StoreBusy):
            raise
    except DBAPIError:
        pass
    [reply] = alone([ask])
    return reply


def _is_small(end: AttemptEnd) -> bool:
    """Whether the end may share a statement with others."""
    return not (end.logprobs or end.others or end.tool_calls) and len(end.text or "") + len(end.reasoning) < SMALL_CHARS


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
