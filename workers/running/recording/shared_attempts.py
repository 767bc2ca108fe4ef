"""Claims and ends of jobs: concurrent ones of one worker's threads share one statement and one commit.

Each is fenced as if it were alone. Sharing pays, because the statement costs more processor and disk than its rows.
"""

import logging
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from headrace.batching import Gathering
from headrace.domain.attempts import AttemptEnd, Claim
from headrace.domain.choices import Choice
from headrace.domain.ids import show_id
from headrace.domain.queues import Route
from headrace.domain.states import TERMINAL, TRANSITIONS, JobState
from headrace.errors import StoreBusy
from headrace.store import Store, attempts
from headrace.store.attempts.claims import claim_of
from workers.running.recording.claims_ahead import ClaimCall, ClaimedRow, ClaimsAhead
from workers.running.recording.commits import ON_DISK, Claimed, Commit
from workers.running.recording.ends_behind import EndsBehind
from workers.sharing import MOST, Sharing, apart, gathering_paid, is_outage

log = logging.getLogger(__name__)

#: Seconds that a statement waits for more rows while many come: about as long as Postgres takes to commit it.
GATHER_S = 0.005
#: Claims that come so many seconds after the last ones are made before their commit. Where they come faster, to wait
#: twice, for the row and for the commit, costs the jobs' threads more time than the commit takes.
LULL_S = 0.02
#: Ends in a row before one waits for more. The jobs of one engine step end together: to wait for others would only keep
#: their readers, and the callers' next requests, from the engine.
CROWD_OF_ENDS = 24
#: An end with longer texts, in all its answers together, is written alone.
ALONE_CHARS = 262_144


class SharedAttempts:
    """Writes for all threads of one worker.

    Attributes:
        ahead: claims jobs before their threads ask.
        behind: writes the ends of jobs that succeeded after their threads have gone on.
    """

    def __init__(self, store: Store, worker_id: UUID, engine: str, *, is_paid: bool = False) -> None:
        """Args: is_paid: True if the engine is the paid API."""
        self._store, self._worker_id, self._engine, self._is_paid = store, worker_id, engine, is_paid
        self._claims = Sharing(self._claim_all, MOST, gathering_paid() if is_paid else Gathering(GATHER_S))
        self.ahead = ClaimsAhead(self._claim_ahead)
        self._claimed_at = -math.inf
        ends = TRANSITIONS[JobState.RUNNING] & TERMINAL
        self._ends = {target: self._sharing_ends(target) for target in ends}
        self.behind = EndsBehind(self._succeed_all, Gathering(GATHER_S, crowd=CROWD_OF_ENDS))

    def claim(self, job_id: UUID, enqueue_no: int) -> Claimed | None:
        """As `store.attempts.claim`; a claim that was made ahead may still be on its way to the disk.

        Raises: StoreUnavailable.
        """
        call = self.ahead.fetch(job_id, enqueue_no)
        row, commit = (self._claims.call(job_id, enqueue_no), ON_DISK) if call is None else call.result()
        return None if row is None else Claimed(claim_of(row), commit)

    def finish(self, claim: Claim, target: JobState, end: AttemptEnd) -> bool:
        """As `store.attempts.finish`, for a job that has no webhook.

        An end with log probabilities, or with the vectors of many inputs, is written alone. It can have megabytes, and
        several would exceed the time-out. Raises: StoreUnavailable.
        """
        if is_large(end):
            return claim.job_id in self._finish_all(target, {claim.job_id: (claim, end)})
        return self._ends[target].call(claim.job_id, (claim, end)) is not None

    def _sharing_ends(self, target: JobState) -> Sharing[UUID, tuple[Claim, AttemptEnd], bool]:
        gathering = gathering_paid() if self._is_paid else Gathering(GATHER_S, crowd=CROWD_OF_ENDS)
        return Sharing(partial(self._finish_all, target), MOST, gathering)

    def _succeed_all(self, ends: Sequence[tuple[Claim, AttemptEnd]]) -> Collection[UUID]:
        return self._finish_all(JobState.SUCCEEDED, {claim.job_id: (claim, end) for claim, end in ends})

    def _claim_ahead(self, calls: Sequence[ClaimCall]) -> None:
        """Claim for these calls: those that come alone before they are on disk.

        Raises: StoreUnavailable. A call that has ended hears of it from its commit.
        """
        lull_s, self._claimed_at = time.monotonic() - self._claimed_at, time.monotonic()
        claim = self._claim_early if lull_s > LULL_S else self._claim_together
        try:
            claim(calls)
        except Exception as error:
            if is_outage(error) or (len(calls) == 1 and isinstance(error, StoreBusy)):
                raise
            left = [call for call in calls if not call.done()]
            for call, outcome in zip(left, apart(left, lambda call: self._claim_together([call])), strict=True):
                if outcome is not None:
                    call.set_exception(outcome)

    def _claim_early(self, calls: Sequence[ClaimCall]) -> None:
        """End the calls before the claims are on disk: their engines compute while it writes."""
        commit = Commit()
        try:
            rows = self._claim_all(dict(call.message for call in calls), is_before_disk=True)
            for call in calls:
                call.set_result(ClaimedRow(rows.get(call.message[0]), commit))
            self._store.wait_for_disk()
        except BaseException as error:
            commit.fail(error)
            raise
        commit.succeed()

    def _claim_together(self, calls: Sequence[ClaimCall]) -> None:
        rows = self._claim_all(dict(call.message for call in calls))
        for call in calls:
            call.set_result(ClaimedRow(rows.get(call.message[0]), ON_DISK))

    def _claim_all(self, asked: Mapping[UUID, int], *, is_before_disk: bool = False) -> Mapping[UUID, Row[Any]]:
        return attempts.claim_all(self._store, asked, self._worker_id, self._engine, is_before_disk=is_before_disk)

    def _finish_all(self, target: JobState, ends: Mapping[UUID, tuple[Claim, AttemptEnd]]) -> Mapping[UUID, bool]:
        # Without money the end of a job is one statement. With money it is several, which need one transaction.
        if any(claim.route is Route.OVERFLOW for claim, _ in ends.values()):
            with self._store.begin() as db:
                ended = attempts.finish_all(db, target, list(ends.values()))
        else:
            ended = attempts.finish_all(self._store, target, list(ends.values()))
        log_ended(target, [ends[job_id] for job_id in ends if job_id in ended])
        return dict.fromkeys(ended, True)


def is_large(end: AttemptEnd) -> bool:
    """True for an end that shares no statement: several such would exceed the time-out."""
    return bool(end.logprobs) or sum(map(len, _texts(end))) > ALONE_CHARS


def _texts(end: AttemptEnd) -> Iterator[str]:
    for each in (Choice(end.text or "", None, None, end.reasoning, tuple(end.tool_calls)), *end.others):
        yield from (each.text, each.reasoning, *(call.arguments for call in each.tool_calls))


def log_ended(target: JobState, ends: Sequence[tuple[Claim, AttemptEnd]]) -> None:
    """Log jobs that ended together, one line each."""
    if ends:
        each = [{"job_id": show_id(claim.job_id), "engine_s": end.engine_s} for claim, end in ends]
        log.info("job_ended", extra={"state": str(target), "each": each})
