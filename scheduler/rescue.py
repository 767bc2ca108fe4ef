"""Rescue: take back the running jobs of dead workers. Knows neither Celery nor why a worker died."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row

from headrace.config import Settings
from headrace.domain.attempts import Usage
from headrace.domain.ids import show_id
from headrace.domain.limits import Cost
from headrace.domain.queues import Route
from headrace.domain.states import JobState
from headrace.errors import StoreUnavailable, UnknownPrice
from headrace.policies.pricing import Tariff, cost
from headrace.store import attempts, clock, escalations, jobs, locks
from headrace.store.attempts import Loss
from headrace.store.bad_rows import BadRows
from headrace.store.money import budgets, tariffs
from scheduler.deps import ControlDeps

log = logging.getLogger(__name__)

#: The cost of an attempt whose model has no price any more: a price is never guessed.
UNPRICED = Cost(Decimal(0), "unpriced")


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a job whose worker died.

    Attributes: stands: True if it ends with the answer that it has from an earlier pool.
    """

    target: JobState
    error_code: str | None = None
    error_message: str | None = None
    stands: bool = False


def fate(*, attempt: int, max_attempts: int, is_cancelled: bool, is_overdue: bool, has_answer: bool = False) -> Fate:
    """Cancelled if a cancel was requested, failed if its time or its attempts are over, else another attempt.

    Args: has_answer: True if an earlier pool has answered it: then it does not fail, as under a worker that lives.
    """
    if is_cancelled:
        return Fate(JobState.CANCELLED)
    if has_answer and (is_overdue or attempt >= max_attempts):
        return Fate(JobState.WAITING, stands=True)
    if is_overdue:
        return Fate(JobState.FAILED, "deadline_exceeded", "Its deadline passed before it could finish.")
    if attempt >= max_attempts:
        message = f"Its worker died in each of {attempt} attempts." if attempt > 1 else "Its worker died."
        return Fate(JobState.FAILED, "worker_lost", message)
    return Fate(JobState.WAITING)


class Patience:
    """Decides whether an expired lease means a dead worker.

    While Postgres is down, no worker can renew its lease. The first sweep after the outage must not take back every
    job: the workers get one full lease, counted from this process's first good query. A process that has just started
    does not know about an outage, and waits as long.
    """

    def __init__(self, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_s = lease_s
        self._clock = clock
        self._good_since: float | None = None

    def good_query(self) -> bool:
        """Note that Postgres answered; True when it has done so for a full lease."""
        if self._good_since is None:
            self._good_since = self._clock()
        return self._clock() - self._good_since >= self._lease_s

    def bad_query(self) -> None:
        """Note that Postgres did not answer."""
        self._good_since = None


def rescue(deps: ControlDeps, patience: Patience, bad: BadRows | None = None) -> int:
    """Take back running jobs with an expired lease, book their lost attempts, and decide each job's fate.

    One batch has `jobs.RESCUE_ROWS` at most: it locks their rows, and at the end the budgets', for a few statements.
    Bound: the rest of the lease and one sweep, which is repeated at once after a full batch; after an outage of
    Postgres, or a start, one full lease more.
    """

    def choose(db: Connection, *conditions: ColumnElement[bool]) -> Sequence[Row[Any]]:
        is_patient = not patience.good_query()
        locks.take(db, "rescue")
        return [] if is_patient else jobs.orphans(db, *conditions)

    try:
        move = partial(_take_back, deps.settings)
        fates, tried = (bad or BadRows("rescue")).move(deps.store, choose, move, jobs.RESCUE_ROWS)
    except StoreUnavailable:
        patience.bad_query()
        raise
    for row, end in fates:
        log.warning("job_rescued", extra={"job_id": show_id(row.id), "attempt": row.attempt, "target": end.target})
    deps.tell_ended([row.id for row, end in fates if end.target.is_terminal])
    deps.admission.announce_ended((), moved=[row.id for row, end in fates if not end.target.is_terminal])
    return tried


def _take_back(settings: Settings, db: Connection, rows: Sequence[Row[Any]]) -> list[tuple[Row[Any], Fate]]:
    tariff, now = tariffs.in_force(db, settings), clock.now(db)
    fates = [(row, _fate_of(row, settings.max_attempts, now)) for row in rows]
    lost = [
        Loss(row, end.target, _lost_cost(row, tariff), end.error_code, end.error_message, end.stands)
        for row, end in fates
    ]
    budgets.settle(db, attempts.lose(db, lost))
    # In the same transaction: past its deadline, `expire` or a reader would else fail it first.
    given = {row.id for row in escalations.stand(db, [row for row, end in fates if end.stands])}
    return [(row, Fate(JobState.SUCCEEDED) if row.id in given else end) for row, end in fates]


def _fate_of(row: Row[Any], max_attempts: int, now: datetime) -> Fate:
    return fate(
        attempt=row.attempt,
        max_attempts=max_attempts,
        is_cancelled=row.cancel_requested_at is not None,
        is_overdue=row.finish_by is not None and row.finish_by <= now,
        has_answer=row.stand_by is not None,
    )


def _lost_cost(row: Row[Any], tariff: Tariff) -> Cost:
    """The cost of the prompt: the output of the dead worker is unknown."""
    try:
        return cost(tariff.price(Route(row.route), row.pool, row.model_requested), Usage(row.prompt_tokens))
    except UnknownPrice:
        log.warning("lost_attempt_unpriced", extra={"job_id": show_id(row.id), "model": row.model_requested})
        return UNPRICED
