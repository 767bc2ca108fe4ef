"""The use case of a worker: claim a job, have the engine answer it, store the answer with its bill.

Knows no Celery: a task calls `Execute.run`. Delivery is at least once, so every step is fenced by the claim.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from headrace.domain.attempts import AttemptEnd, Claim, HandBack
from headrace.domain.ids import show_id
from headrace.domain.states import SUSPECT, JobState
from headrace.errors import EngineBusy, EngineCrash, EngineError, EngineUnavailable, StoreUnavailable
from headrace.policies.overflow import Objection
from headrace.policies.retries import FIRST_DELAY_S, GiveUp, RetryRules, backoff_s, decide, jitter
from workers.outcomes import Outcome
from workers.paid.payer import NO_CALL, NotYet, Payer
from workers.running.attempts import StopReason
from workers.running.bill import Answered, Bill
from workers.running.generating import Generating
from workers.running.records import AttemptRecords
from workers.running.rerouting import next_queue
from workers.running.worker_state import WorkerState

log = logging.getLogger(__name__)

#: How long a message waits for an engine that is being started again, or is held while Postgres is away.
NOT_READY_HOLD_S = 2.0


#: Why a job has failed that was aborted for its time; it pays for what it produced.
_TIMED_OUT: Mapping[StopReason, str] = {
    "deadline_exceeded": "Its deadline passed while it ran.",
    "run_timeout": "It ran for longer than its pool allows (max_run_s): ask for a shorter answer.",
}


@dataclass(slots=True)
class Execute:
    """Runs attempts.

    Attributes:
        payer: pays for what the engine answers; None for an engine of ours.
    """

    state: WorkerState
    generating: Generating
    records: AttemptRecords
    bill: Bill
    rules: RetryRules
    payer: Payer | None = None

    def takes(self) -> bool:
        """True while one more job may come."""
        return self.state.ready.is_set() and (self.payer is None or self.payer.is_open)

    def run(self, job_id: UUID, enqueue_no: int) -> Outcome | None:
        """Run one attempt of a job, if there is still one to run.

        Returns: where the job is now; None when another process answers for it.

        A message that finds no engine ready, or no Postgres, is held for a moment, which leaves the rest of the queue
        where it is counted, and then dropped: the job stays queued, and `publish_due` sends another.
        """
        try:
            if self.state.ready.wait(NOT_READY_HOLD_S):
                return self._run(job_id, enqueue_no)
            log.warning("engine_not_ready", extra={"job_id": show_id(job_id)})
            return Outcome(JobState.QUEUED, EngineUnavailable.code)
        except StoreUnavailable as error:
            log.warning("claim_failed", extra={"job_id": show_id(job_id), "error": str(error)})
            time.sleep(NOT_READY_HOLD_S)
            return Outcome(JobState.QUEUED, error.code)
        finally:
            self.generating.release(job_id)

    def _run(self, job_id: UUID, enqueue_no: int) -> Outcome | None:
        claim = self.records.claim(job_id, enqueue_no)
        if claim is None:
            return None
        with self.state.attempts.running(claim.request_id):
            self.records.has_left(claim)
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
        return not self.state.ready.is_set() or self.state.attempts.reason(claim.request_id) is not None

    def _put_off(self, claim: Claim, delay_s: float, end: AttemptEnd = NO_CALL) -> Outcome | None:
        """Give a job back whose call is to be made later. It is as good as never taken."""
        delay_s *= 1 + jitter()
        return self.records.hand_back(claim, end, HandBack(delay_s=delay_s))

    def _turn_away(self, claim: Claim, objection: Objection, end: AttemptEnd = NO_CALL) -> Outcome | None:
        """Let a job that the paid API is closed to wait elsewhere, or for it; or fail it, if it cannot."""
        log.warning("overflow_refused", extra={"job_id": show_id(claim.job_id), "code": objection.code})
        end = replace(end, error_code=objection.code, error_message=objection.message)
        if (reroute := next_queue(claim, objection, self.rules.paid_pools, jitter())) is None:
            return self.records.finish(claim, JobState.FAILED, end)
        return self.records.hand_back(claim, end, HandBack(reroute=reroute))

    def _attempt(self, claim: Claim) -> Outcome | None:
        tier = self.payer.tier(claim) if self.payer else None
        outcome, engine_s = self.generating.generate(claim, tier)
        if self.payer is not None:
            self.payer.note_outcome(claim, outcome, tier)
        # At once: the next job comes in while this one's answer is written.
        self.generating.release(claim.job_id, outcome)
        if isinstance(outcome, EngineError):
            return self._failed(claim, outcome, engine_s)
        return self._answered(Answered(claim, outcome, engine_s))

    def _answered(self, answered: Answered) -> Outcome | None:
        """Store what the engine returned, by why it stopped."""
        claim = answered.claim
        stop = self.state.attempts.reason(claim.request_id)
        if answered.generation.finish_reason != "abort":
            return self.records.finish(claim, JobState.SUCCEEDED, self.bill.of(answered, "succeeded"))
        if stop == "cancelled":
            return self.records.finish(claim, JobState.CANCELLED, self.bill.of(answered, "aborted"))
        if stop is not None and (why := _TIMED_OUT.get(stop)):
            return self.records.finish(claim, JobState.FAILED, self.bill.of(answered, "aborted", stop, why))
        # The engine or this worker is going away; the job is as good as never taken.
        return self.records.hand_back(claim, replace(self.bill.of(answered, "aborted", stop), kind="waste"))

    def _failed(self, claim: Claim, error: EngineError, engine_s: float) -> Outcome | None:
        """Try again later or elsewhere, or fail the job."""
        if isinstance(error, EngineCrash):
            self.state.ready.clear()
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
        self.state.ready.clear()
        return self.records.hand_back(claim, end)

    def _try_again(self, claim: Claim, error: EngineError, end: AttemptEnd) -> Outcome | None:
        decision = decide(error, claim.attempt, self.rules.max_attempts, jitter())
        facts = {"job_id": show_id(claim.job_id), "attempt": claim.attempt, "code": error.code}
        log.warning("attempt_failed", extra={**facts, "reason": decision.reason})
        if isinstance(decision, GiveUp):
            return self.records.finish(claim, JobState.FAILED, end)
        return self.records.retry(claim, end, decision.delay_s)

    def _crashed(self, claim: Claim, error: EngineCrash, engine_s: float) -> Outcome | None:
        """Give the job back under suspicion, without counting the attempt; or fail it, if it ran alone.

        What had made no token yet when the engine died is the first suspect, and runs alone from now on. What was under
        way becomes one if an engine dies under it again.
        """
        end = self.bill.of_failure(claim, error, engine_s)
        facts = {"job_id": show_id(claim.job_id), "made_tokens": error.made_tokens, "suspicion": claim.suspicion}
        log.warning("engine_died_under_job", extra=facts)
        if claim.suspicion >= SUSPECT:
            self.state.crashes.explain()
            self.records.poison(claim)
            message = "The engine died under this prompt, also when nothing else ran in it: it is refused for a day."
            return self.records.finish(claim, JobState.FAILED, replace(end, error_message=message))
        suspicion = 1 if error.made_tokens else SUSPECT
        return self.records.hand_back(claim, end, HandBack(suspicion=suspicion))
