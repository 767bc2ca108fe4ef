"""Records in Postgres how one worker's attempts begin and end, and notifies the readers.

The claim fences every write. The write of an attempt's end is retried through a Postgres outage.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection

from headrace.domain.attempts import AS_BEFORE, AttemptEnd, Claim, Escalation, HandBack, Outcome, Reroute
from headrace.domain.ids import show_id
from headrace.domain.prompts import prompt_digest
from headrace.domain.queues import Route, queue_name
from headrace.domain.states import JobState
from headrace.errors import StoreUnavailable
from headrace.policies.confinement import CONFINED
from headrace.policies.retries import FIRST_DELAY_S
from headrace.store import Store, attempts, confinements, escalations, poison
from workers.running.recording.claims_ahead import ClaimsAhead
from workers.running.recording.commits import Claimed, Commit
from workers.running.recording.ends_behind import REWRITE_AFTER_S, REWRITE_FOR_S, EndsBehind
from workers.running.recording.notices import Notices
from workers.running.recording.publisher import Publisher
from workers.running.recording.shared_attempts import SharedAttempts, is_large, log_ended

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class AttemptRecords:
    """Writes for all threads of one worker. A write returns None if the claim is lost.

    Attributes:
        worker_id: the id of the worker's row in `workers`, which fences every write.
        engine: the engine's name.
        notices: told of each job right after its claim, and again after its end.
        publisher: forgets the streams of jobs that have ended.
        is_paid: True if the engine is the paid API.
        confine_s: how long an app is confined whose prompts have killed engines; 0: never.
    """

    store: Store
    worker_id: UUID
    engine: str
    notices: Notices
    publisher: Publisher
    is_paid: bool = False
    confine_s: float = 0.0
    _shared: SharedAttempts = field(init=False)

    def __post_init__(self) -> None:
        self._shared = SharedAttempts(self.store, self.worker_id, self.engine, is_paid=self.is_paid)

    @property
    def ahead(self) -> ClaimsAhead:
        """Claims jobs while they are on their way to their threads."""
        return self._shared.ahead

    @property
    def behind(self) -> EndsBehind:
        """Ends jobs after their threads have gone on."""
        return self._shared.behind

    def claim(self, job_id: UUID, enqueue_no: int) -> Claimed | None:
        """Claim a queued job. None if it cannot be claimed. Raises: StoreUnavailable."""
        claimed = self._shared.claim(job_id, enqueue_no)
        if claimed is None:
            log.info("claim_missed", extra={"job_id": show_id(job_id), "enqueue_no": enqueue_no})
        return claimed

    def has_left(self, claim: Claim) -> None:
        """Notify the job's queue that the job has left it."""
        self.notices.left(claim.job_id, claim.enqueue_no)

    def finish(self, claim: Claim, target: JobState, end: AttemptEnd) -> Outcome | None:
        """End the job with this attempt, and tell its readers."""
        alone = partial(self._in_one, lambda db: attempts.finish(db, claim, target, end))
        once = alone if claim.has_webhook else partial(self._shared.finish, claim, target, end)
        if not self._insist(claim, once):
            return None
        if claim.has_webhook:
            log_ended(target, [(claim, end)])
        self.notices.ended(claim.job_id, has_webhook=claim.has_webhook)
        if claim.stream:
            self.publisher.forget(claim.job_id)
        return Outcome(target, end.error_code)

    def succeed(self, claim: Claim, end: AttemptEnd) -> Outcome | Commit | None:
        """End the job with this answer, and tell its readers. Returns: a commit if the end is written behind."""
        has_more = claim.has_webhook or claim.stream or claim.route is Route.OVERFLOW or is_large(end)
        if has_more or not self.behind.is_open:
            return self.finish(claim, JobState.SUCCEEDED, end)
        commit = self.behind.finish(claim, end)
        commit.then(partial(self._announce, claim))
        return commit

    def _announce(self, claim: Claim, is_on_disk: bool) -> None:
        if is_on_disk:
            self.notices.ended(claim.job_id, has_webhook=False)

    def escalate(self, claim: Claim, end: AttemptEnd, to: Escalation) -> Outcome | None:
        """Send the job on to the next pool of its rule; see `store.attempts.escalations`."""
        log.info("job_escalated", extra={"job_id": show_id(claim.job_id), "signal": to.signal, "pool": to.pool})
        return self._put_back(claim, end, lambda db: escalations.escalate(db, claim, end, to))

    def stand_in(self, claim: Claim, end: AttemptEnd, reason: str) -> Outcome | None:
        """End the job with the answer that it has from an earlier pool, and tell its readers."""
        if not self._insist(claim, partial(self._in_one, lambda db: escalations.stand_in(db, claim, end, reason))):
            return None
        log.info("kept_answer_stands", extra={"job_id": show_id(claim.job_id), "code": end.error_code})
        self.notices.ended(claim.job_id, has_webhook=claim.has_webhook)
        return Outcome(JobState.SUCCEEDED, end.error_code)

    def retry(self, claim: Claim, end: AttemptEnd, delay_s: float) -> Outcome | None:
        """Put the job back for another attempt; see `store.attempts.retry`."""
        return self._put_back(claim, end, lambda db: attempts.retry(db, claim, end, delay_s))

    def hand_back(self, claim: Claim, end: AttemptEnd, how: HandBack = AS_BEFORE) -> Outcome | None:
        """Hand the job back as if it had never been taken; see `store.attempts.hand_back`."""
        return self._put_back(claim, end, lambda db: attempts.hand_back(db, claim, end, how))

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
                poison.remember(db, digest, claim.job_id)
                until = confinements.strike(db, claim, self.confine_s)
        except StoreUnavailable as error:
            log.warning("poison_not_remembered", extra={"job_id": show_id(claim.job_id), "error": str(error)})
            return
        if until is not None:
            facts = {"app_id": str(claim.app_id), "pool": claim.pool, "until": f"{until:%Y-%m-%dT%H:%M:%SZ}"}
            log.warning("app_confined", extra={"job_id": show_id(claim.job_id), **facts})

    def _put_back(
        self, claim: Claim, end: AttemptEnd, write: Callable[[Connection], JobState | None]
    ) -> Outcome | None:
        state = self._insist(claim, partial(self._in_one, write))
        return Outcome(state, end.error_code) if state else None

    def _in_one(self, write: Callable[[Connection], T]) -> T:
        with self.store.begin() as db:
            return write(db)

    def _insist(self, claim: Claim, write: Callable[[], T]) -> T | None:
        """Write under the claim; retry through a Postgres outage. None if the claim or the answer is lost."""
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
