"""Attempts that nobody ended: their worker died, and took with it what they produced."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from headrace.jobs import JobState, Route
from headrace.pricing import Cost
from headrace.store import reservations
from headrace.store.reservations import Call
from headrace.store.transitions import transition
from headrace.tables import attempts, jobs, ledger


def lose(
    db: Connection,
    row: Row[Any],
    target: JobState,
    cost: Cost,
    *,
    error_code: str | None = None,
    error_message: str | None = None,
) -> bool:
    """Take a running job from its dead worker: move it to `target` and book the attempt as lost.

    Args:
        row: of `jobs`, as `jobs.orphans` returned it. A job that goes to `waiting` is due at once.
    Returns: False, and nothing written, when that attempt has ended since.
    """
    values: dict[str, Any] = {"error_code": error_code, "error_message": error_message}
    if target is JobState.WAITING:
        values = {"not_before": sa.func.now()}
    held = (jobs.c.id == row.id, jobs.c.worker_id == row.worker_id, jobs.c.attempt == row.attempt)
    if not transition(db, [JobState.RUNNING], target, *held, **values):
        return False
    if Route(row.route) is Route.OVERFLOW:
        # Whether the call was answered, nobody knows: it counts as what it may have cost.
        spent = reservations.settle(db, [Call(row.id, row.attempt, row.app_id, None)])
        cost = replace(cost, usd=spent.get(row.id, Decimal(0)))
    book_lost(db, row, cost)
    return True


def book_lost(db: Connection, row: Row[Any], cost: Cost) -> None:
    """Book the attempt of a dead worker as waste, estimated, since what it produced is unknown."""
    this = (attempts.c.job_id == row.id, attempts.c.number == row.attempt)
    db.execute(sa.update(attempts).where(*this).values(outcome="lost", ended_at=sa.func.now()))
    db.execute(
        sa.insert(ledger).values(
            kind="waste",
            job_id=row.id,
            attempt=row.attempt,
            app_id=row.app_id,
            end_user=row.end_user,
            pool=row.pool,
            model=row.model_requested,
            prompt_tokens=row.prompt_tokens,
            usd=cost.usd,
            price_version=cost.price_version,
            estimated=True,
        )
    )
