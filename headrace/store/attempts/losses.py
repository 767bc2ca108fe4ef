"""Lost attempts: their worker died before it could end them, and their output is lost."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row
from sqlalchemy.dialects.postgresql import ARRAY

from headrace.domain.limits.budgets import Cost
from headrace.domain.queues import Route
from headrace.domain.states import JobState
from headrace.store.jobs.transitions import transition
from headrace.store.money.reservations import PaidCall
from headrace.tables import attempts, jobs, ledger


@dataclass(frozen=True, slots=True)
class Loss:
    """A running job whose worker is dead, and what becomes of the job.

    Attributes:
        row: of `jobs`, from `jobs.orphans`.
        target: the job's next state; a job that goes to `waiting` is due at once.
        stands: True for one that goes to `waiting`, and is not tried again: the answer that it has stands.
        cost: of the attempt, without the cost of a call to the paid API.
    """

    row: Row[Any]
    target: JobState
    cost: Cost
    error_code: str | None = None
    error_message: str | None = None
    stands: bool = False


def lose(db: Connection, losses: Sequence[Loss]) -> list[PaidCall]:
    """Take running jobs from their dead workers: move each to its target and book its attempt as lost.

    A few statements for any number of jobs. Jobs that have ended meanwhile are skipped.
    Returns: the jobs' calls to the paid API, for `reservations.settle`. It is unknown whether these were answered, so
    they count with their maximum cost. Settle them last, to hold the locks on the budgets' rows briefly.
    """
    by_fate: dict[tuple[JobState, str | None, str | None, bool], list[Loss]] = defaultdict(list)
    for loss in losses:
        by_fate[loss.target, loss.error_code, loss.error_message, loss.stands].append(loss)
    taken = [loss for group in by_fate.values() for loss in _move(db, group)]
    if not taken:
        return []
    calls = [
        PaidCall(loss.row.id, loss.row.attempt, loss.row.app_id, None)
        for loss in taken
        if Route(loss.row.route) is Route.OVERFLOW
    ]
    _book(db, taken, _reserved_usd(db, calls))
    return calls


def _move(db: Connection, losses: Sequence[Loss]) -> list[Loss]:
    """Move jobs that share one target and one error. Returns: those that their dead workers still held."""
    one = losses[0]
    values: dict[str, Any] = {"error_code": one.error_code, "error_message": one.error_message}
    if one.target is JobState.WAITING:
        now = sa.func.now()
        values = {"not_before": None, "stand_by": now} if one.stands else {"not_before": now}
    held = [(loss.row.id, loss.row.worker_id, loss.row.attempt) for loss in losses]
    still = sa.tuple_(jobs.c.id, jobs.c.worker_id, jobs.c.attempt).in_(held)
    moved = {row.id for row in transition(db, [JobState.RUNNING], one.target, still, **values)}
    return [loss for loss in losses if loss.row.id in moved]


def _reserved_usd(db: Connection, calls: Sequence[PaidCall]) -> dict[UUID, Decimal]:
    """What is reserved for each call. It cannot change, since the jobs are locked."""
    if not calls:
        return {}
    these = attempts.c.job_id == sa.any_(sa.cast([call.job_id for call in calls], ARRAY(sa.Uuid)))
    rows = db.execute(sa.select(attempts.c.job_id, attempts.c.number, attempts.c.reserved_usd).where(these))
    found = {(row.job_id, row.number): row.reserved_usd for row in rows}
    return {call.job_id: found.get((call.job_id, call.number), Decimal(0)) for call in calls}


def _book(db: Connection, losses: Sequence[Loss], spent_usd: dict[UUID, Decimal]) -> None:
    """End the attempts, and book each as waste. The cost is an estimate, since the attempt's output is unknown."""
    these = sa.tuple_(attempts.c.job_id, attempts.c.number).in_([(each.row.id, each.row.attempt) for each in losses])
    db.execute(sa.update(attempts).where(these).values(outcome="lost", ended_at=sa.func.now()))
    entries = [
        {
            "kind": "waste",
            "job_id": row.id,
            "attempt": row.attempt,
            "app_id": row.app_id,
            "end_user": row.end_user,
            "pool": row.pool,
            "model": row.model_requested,
            "prompt_tokens": row.prompt_tokens,
            "usd": spent_usd.get(row.id, cost.usd),
            "price_version": cost.price_version,
            "estimated": True,
        }
        for row, cost in ((each.row, each.cost) for each in losses)
    ]
    db.execute(sa.insert(ledger), entries)
