"""Records in Postgres how one worker's attempts begin and end, and tells Redis and Celery of it.

A job passes through these threads. All jobs share the statements of steps 2 and 5.

1. Celery's loop: `expect` asks for the claims of the jobs of a take, and `when_claimed` says what starts then.
2. The recorder's: `_claim_all` claims them in one statement. A job that comes alone is claimed before the disk has it.
3. Celery's pool: `claim` returns the claim; the engine answers; `finish`, or another of the ends, returns a future of
   the outcome, and the thread is free.
4. The recorder's: once the claim is on disk, a notice says to the job's queue that the job has left it.
5. The recorder's: `_write` ends the jobs that ended meanwhile, in one statement for those that end alike.
6. The same thread calls what waits for the futures: a notice wakes the job's readers, Celery learns the outcome, and a
   worker that stops no longer waits for the job.

The claim fences every write. Nothing of a job leaves the worker before its claim is on disk, and nothing of its end
before that is. The write of an end is retried through a Postgres outage.

Steps 1 and 5 give 2,379 jobs a second in place of 1,466 (`benchmarks/drain.py`, two cores, 2026-11-28).
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row

from headrace.batching import Gathering
from headrace.domain.answers import Choice
from headrace.domain.attempts import AS_BEFORE, AttemptEnd, Claim, Escalation, HandBack, Outcome, Reroute
from headrace.domain.ids import month_of, show_id
from headrace.domain.prompts import prompt_digest
from headrace.domain.queues import Route, queue_name
from headrace.domain.states import JobState
from headrace.errors import StoreBusy, StoreUnavailable
from headrace.policies.retries import CONFINED, FIRST_DELAY_S
from headrace.store import Store, attempts, escalations
from headrace.store.attempts import claim_of
from headrace.store.jobs import confinements
from workers.running.publisher import Notices, Publisher
from workers.sharing import Sharing, gathering_paid

log = logging.getLogger(__name__)

#: Seconds without claims after which the next ones are made before their commit. Where they come faster, to wait twice,
#: for the row and for the commit, costs the jobs' threads more time than the commit takes.
LULL_S = 0.02
#: Seconds that a statement waits for more ends while many come: about as long as Postgres takes to commit it.
GATHER_S = 0.005
#: Ends in a row before one waits for more. The jobs of one engine step end together: to wait for others would only keep
#: their readers, and the callers' next requests, from the engine.
CROWD_OF_ENDS = 24
#: An end with longer texts, in all its answers together, is written alone.
ALONE_CHARS = 262_144
#: Seconds before a write that Postgres did not accept is retried.
REWRITE_AFTER_S = 0.5
#: Seconds before the write of an end whose row is locked is retried, alone.
LOCKED_FOR_S = 5.0
#: Seconds for which the write of an end is retried: an answer that is dropped is made, and on the paid API paid, again.
#: A session that locks `jobs` for longer is rare. Must be longer than `rescue` waits after an outage before it takes a
#: job from a live worker.
REWRITE_FOR_S = 600.0
#: Two for claims and two for ends, see `Sharing`; one for the notices; and as many again, which none should need.
THREADS = 10
#: Seconds that `close` waits for a statement under way: longer than Postgres may take for one.
CLOSE_TIMEOUT_S = 10.0

#: Another process holds the job, and shows its outcome.
ELSEWHERE = Outcome(JobState.RUNNING)
#: The outcome of an attempt, once that is on disk. Raises nothing.
Ending = Future[Outcome]
#: A message: the job and its `enqueue_no`.
Message = tuple[UUID, int]


def ended(outcome: Outcome) -> Ending:
    """An outcome of which nothing is left to write."""
    ending = Ending()
    ending.set_result(outcome)
    return ending


class Claimed(NamedTuple):
    """A claim, and the commit that puts it on disk, which raises StoreUnavailable if it fails."""

    claim: Claim
    on_disk: Future[None]


class _ClaimedRow(NamedTuple):
    row: Row[Any]
    on_disk: Future[None]


class _ClaimCall(Future[_ClaimedRow | None]):
    """The claim of one message; None if there is nothing to claim.

    Attributes:
        is_ahead: True if it was asked for before the job's thread came up.
        is_alone: True if no other job was taken with this one, or waited for its claim then.
    """

    def __init__(self, message: Message, *, is_ahead: bool = False, is_alone: bool = False) -> None:
        super().__init__()
        self.message, self.is_ahead, self.is_alone = message, is_ahead, is_alone


#: How an attempt ends: with the job, in this state; or by a write of its own, which returns the job's state.
How = JobState | Callable[[Connection], JobState | None]


class _End(Future[Outcome]):
    def __init__(self, claim: Claim, end: AttemptEnd, how: How) -> None:
        super().__init__()
        self.claim, self.end, self.how = claim, end, how
        self.give_up_at = time.monotonic() + REWRITE_FOR_S


@dataclass(slots=True)
class Recorder:
    """Writes for all threads of one worker.

    Attributes:
        worker_id: the id of the worker's row in `workers`, which fences every write.
        notices: notify Redis of each job right after its claim, and again after its end.
        publisher: forgets the streams of jobs that have ended.
        confine_s: how long an app is confined whose prompts have killed engines; 0: never.
    """

    store: Store
    worker_id: UUID
    engine: str
    notices: Notices
    publisher: Publisher
    is_paid: bool = False
    confine_s: float = 0.0
    threads: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, THREADS, "recorder"))
    _claims: Sharing[_ClaimCall, _ClaimedRow | None] = field(init=False)
    _ends: Sharing[_End, JobState | None] = field(init=False)
    _changed: threading.Condition = field(init=False, default_factory=threading.Condition)
    #: The claims made ahead that their threads have not fetched.
    _ahead: dict[Message, _ClaimCall] = field(init=False, default_factory=dict)
    _claimed_at: float = field(init=False, default=-math.inf)
    #: The commits of claims that Postgres has made and the disk may not have.
    _early: deque[Future[None]] = field(init=False, default_factory=deque)
    _ending: set[_End] = field(init=False, default_factory=set)
    _locked: ThreadPoolExecutor = field(init=False, default_factory=partial(ThreadPoolExecutor, 1, "locked-ends"))
    _is_closing: threading.Event = field(init=False, default_factory=threading.Event)

    def __post_init__(self) -> None:
        more_claims = gathering_paid() if self.is_paid else None
        more_ends = gathering_paid() if self.is_paid else Gathering(GATHER_S, crowd=CROWD_OF_ENDS)
        self._claims = Sharing(self.threads, self._claim_all, more_claims, after=self._wait_for_disk)
        self._ends = Sharing(self.threads, self._write, more_ends, tell=self._told, alike=_alike)

    def close(self) -> None:
        """Stop, after the last statement. Ends that cannot be written now are dropped."""
        self._is_closing.set()
        wait(set(self._ending), CLOSE_TIMEOUT_S)
        self._locked.shutdown()
        self.threads.shutdown()

    # Claims.

    def expect(self, asked: Mapping[UUID, int]) -> None:
        """Claim these jobs, `{job id: enqueue_no}`, whose threads will ask for their claims."""
        with self._changed:
            is_alone = len(asked) == 1 and not self._ahead
            new = [message for message in asked.items() if message not in self._ahead]
            calls = [_ClaimCall(message, is_ahead=True, is_alone=is_alone) for message in new]
            self._ahead |= {call.message: call for call in calls}
        self._claims.ask(*calls)

    def expects(self, job_id: UUID, enqueue_no: int) -> bool:
        """True if this message's job is claimed, or being claimed, and its thread has not asked for the claim."""
        return (job_id, enqueue_no) in self._ahead

    def when_claimed(self, job_id: UUID, enqueue_no: int, start: Callable[[], object]) -> None:
        """Call `start`, which must not block, once this message's job is claimed, or cannot be.

        At once if it was not expected, or was taken alone: its thread then comes up while the claim is made.
        """
        if (call := self._ahead.get((job_id, enqueue_no))) is None or call.is_alone:
            start()
        else:
            call.add_done_callback(lambda _: start())

    def claim(self, job_id: UUID, enqueue_no: int) -> Claimed | None:
        """Claim a queued job. None if it cannot be claimed. Raises: StoreUnavailable."""
        with self._changed:
            call = self._ahead.pop((job_id, enqueue_no), None)
            self._changed.notify_all()
        if call is None:
            call = _ClaimCall((job_id, enqueue_no))
            self._claims.ask(call)
        if (made := call.result()) is None:
            log.info("claim_missed", extra={"job_id": show_id(job_id), "enqueue_no": enqueue_no})
            return None
        row, on_disk = made
        return Claimed(claim_of(row), on_disk)

    def wait_until_fetched(self, timeout_s: float) -> bool:
        """Wait until no claim made ahead is left without its thread. False if one is left after `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._ahead, timeout_s)

    def has_left(self, claim: Claim) -> None:
        """Notify the job's queue that the job has left it."""
        self.notices.left(claim.job_id, claim.enqueue_no)

    def _claim_all(self, calls: Sequence[_ClaimCall]) -> Sequence[_ClaimedRow | None]:
        """Claim for these; those that come alone before they are on disk, so that their engines compute meanwhile."""
        lull_s, self._claimed_at = time.monotonic() - self._claimed_at, time.monotonic()
        is_early = lull_s > LULL_S and all(call.is_ahead for call in calls)
        # Only the message with a job's highest number can be valid.
        asked = dict(sorted(call.message for call in calls))
        rows = attempts.claim_all(self.store, asked, self.worker_id, self.engine, is_before_disk=is_early)
        on_disk = Future[None]()
        if is_early:
            self._early.append(on_disk)
        else:
            on_disk.set_result(None)
        # Of two equal messages, the first has the claim.
        mine = [rows.pop(job_id, None) if asked[job_id] == no else None for job_id, no in (c.message for c in calls)]
        return [None if row is None else _ClaimedRow(row, on_disk) for row in mine]

    def _wait_for_disk(self) -> None:
        while self._early:
            with suppress(IndexError):
                on_disk = self._early.popleft()
                try:
                    self.store.wait_for_disk()
                except BaseException as error:
                    on_disk.set_exception(StoreUnavailable(f"The claim was not committed: {error}"))
                else:
                    on_disk.set_result(None)

    # Ends.

    def finish(self, claim: Claim, target: JobState, end: AttemptEnd) -> Ending:
        """End the job with this attempt, and tell its readers."""
        return self._end(claim, end, target)

    def escalate(self, claim: Claim, end: AttemptEnd, to: Escalation) -> Ending:
        """Send the job on to the next pool of its rule; see `store.escalations`."""
        log.info("job_escalated", extra={"job_id": show_id(claim.job_id), "signal": to.signal, "pool": to.pool})
        return self._end(claim, end, lambda db: escalations.escalate(db, claim, end, to))

    def stand_in(self, claim: Claim, end: AttemptEnd, reason: str) -> Ending:
        """End the job with the answer that it has from an earlier pool, and tell its readers."""
        log.info("kept_answer_stands", extra={"job_id": show_id(claim.job_id), "code": end.error_code})
        return self._end(claim, end, lambda db: escalations.stand_in(db, claim, end, reason))

    def retry(self, claim: Claim, end: AttemptEnd, delay_s: float) -> Ending:
        """Put the job back for another attempt; see `store.attempts.retry`."""
        return self._end(claim, end, lambda db: attempts.retry(db, claim, end, delay_s))

    def hand_back(self, claim: Claim, end: AttemptEnd, how: HandBack = AS_BEFORE) -> Ending:
        """Hand the job back as if it had never been taken; see `store.attempts.hand_back`."""
        return self._end(claim, end, lambda db: attempts.hand_back(db, claim, end, how))

    def _end(self, claim: Claim, end: AttemptEnd, how: How) -> Ending:
        ending = _End(claim, end, how)
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        self._ends.ask(ending)
        return ending

    def _write(self, ends: Sequence[_End]) -> Sequence[JobState | None]:
        """Write ends that are alike. Returns: the jobs' states; None where the claim no longer holds."""
        how = ends[0].how
        try:
            if isinstance(how, JobState):
                return self._finish(how, [(each.claim, each.end) for each in ends])
            with self.store.begin() as db:
                return [how(db)]
        except StoreBusy:
            raise
        except StoreUnavailable:
            # All ends wait, and share the next statement.
            self._is_closing.wait(REWRITE_AFTER_S)
            raise

    def _finish(self, target: JobState, ends: Sequence[tuple[Claim, AttemptEnd]]) -> Sequence[JobState | None]:
        # With a webhook or money the end of a job is several statements, which need one transaction.
        if any(claim.has_webhook or claim.route is Route.OVERFLOW for claim, _ in ends):
            with self.store.begin() as db:
                done = attempts.finish_all(db, target, ends)
        else:
            done = attempts.finish_all(self.store, target, ends)
        each = [
            {"job_id": show_id(claim.job_id), "engine_s": end.engine_s} for claim, end in ends if claim.job_id in done
        ]
        if each:
            log.info("job_ended", extra={"state": str(target), "each": each})
        return [target if claim.job_id in done else None for claim, _ in ends]

    def _told(self, ending: _End, state: JobState | BaseException | None) -> None:
        claim, is_late = ending.claim, self._is_closing.is_set() or time.monotonic() > ending.give_up_at
        facts = {"job_id": show_id(claim.job_id), "attempt": claim.attempt}
        if isinstance(state, StoreBusy) and not is_late:
            self._locked.submit(self._write_locked, ending, time.monotonic() + LOCKED_FOR_S)
        elif isinstance(state, StoreUnavailable) and not is_late:
            self._ends.ask(ending)
        elif isinstance(state, JobState):
            self._tell(claim, state)
            ending.set_result(Outcome(state, ending.end.error_code))
        else:
            if isinstance(state, StoreUnavailable):
                log.error("result_dropped", extra=facts)
            elif state is not None:
                log.error("end_not_written", extra=facts, exc_info=state)
            else:
                log.warning("claim_lost", extra=facts)
            ending.set_result(ELSEWHERE)

    def _tell(self, claim: Claim, state: JobState) -> None:
        """Notify the readers of a job that has ended."""
        if state.is_terminal:
            self.notices.ended(claim.job_id, has_webhook=claim.has_webhook)
            if claim.stream:
                self.publisher.forget(claim.job_id)

    def _write_locked(self, ending: _End, due_at: float) -> None:
        """Write the end of a job whose row was locked. Other ends do not wait for the lock meanwhile."""
        self._is_closing.wait(max(0.0, due_at - time.monotonic()))
        try:
            [state] = self._write([ending])
        except Exception as error:
            self._told(ending, error)
        else:
            self._told(ending, state)

    # Confined apps.

    def enter(self, claim: Claim) -> HandBack | None:
        """Let the job of a confined app run if it is its turn; otherwise returns how to hand it back.

        A held job waits in Postgres until `give_turn` chooses it, and at most until the confinement ends.
        """
        try:
            with self.store.begin() as db:
                left_s = confinements.enter(db, claim)
        except StoreUnavailable as error:
            log.warning("turn_not_asked", extra={"job_id": show_id(claim.job_id), "error": str(error)})
            return HandBack(delay_s=FIRST_DELAY_S)
        if left_s is None:
            return None
        log.info("job_held", extra={"job_id": show_id(claim.job_id), "app_id": str(claim.app_id), "pool": claim.pool})
        why = f"{CONFINED}prompts of its app have killed engines of pool '{claim.pool}'"
        return HandBack(reroute=Reroute(queue_name(claim.pool, claim.lane), Route.POOL, why, left_s))

    def poison(self, claim: Claim) -> None:
        """Make the API refuse this prompt, and count it against its app, which is confined after too many.

        If Postgres does not accept the write, the next crash repeats it.
        """
        digest = prompt_digest(claim.model, claim.messages, claim.sampling)
        try:
            with self.store.begin() as db:
                confinements.remember_poison(db, digest, claim.job_id)
                until = confinements.strike(db, claim, self.confine_s)
        except StoreUnavailable as error:
            log.warning("poison_not_remembered", extra={"job_id": show_id(claim.job_id), "error": str(error)})
            return
        if until is not None:
            facts = {"app_id": str(claim.app_id), "pool": claim.pool, "until": f"{until:%Y-%m-%dT%H:%M:%SZ}"}
            log.warning("app_confined", extra={"job_id": show_id(claim.job_id), **facts})


def _alike(ending: _End) -> Hashable:
    """Ends with one of these share a statement: the state and the month of their jobs.

    A large one shares none. It can have megabytes, and several would exceed the time-out.
    """
    if isinstance(ending.how, JobState) and not _is_large(ending.end):
        return ending.how, month_of(ending.claim.job_id)
    return ending


def _is_large(end: AttemptEnd) -> bool:
    return bool(end.logprobs) or sum(map(len, _texts(end))) > ALONE_CHARS


def _texts(end: AttemptEnd) -> Iterator[str]:
    for each in (Choice(end.text or "", None, None, end.reasoning, tuple(end.tool_calls)), *end.others):
        yield from (each.text, each.reasoning, *(call.arguments for call in each.tool_calls))
