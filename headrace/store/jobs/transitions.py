"""The only place where a job changes state: a compare-and-set that obeys the transition table."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Row, Update

from headrace.domain.ids import new_id
from headrace.domain.states import JobState, check_transition
from headrace.policies.webhooks import event_of
from headrace.tables import deliveries, jobs

#: The columns of a job that `announce` reads.
ANNOUNCED = ("id", "app_id", "state", "finish_reason", "webhook_url")


def transition(
    db: Connection, sources: Sequence[JobState], target: JobState, *conditions: ColumnElement[bool], **values: Any
) -> Sequence[Row[Any]]:
    """Move every job that is in `sources` and meets `conditions` to `target`, and return the updated rows.

    A job that no longer meets them is skipped, so that at most one of two actors moves it. A job that ends gets
    `ended_at` and, if it names a webhook, a row in `deliveries`, in the same transaction.
    Raises: IllegalTransition: the table does not allow it.
    """
    rows = db.execute(moving(sources, target, *conditions, **values).returning(jobs)).all()
    if target.is_terminal:
        announce(db, rows)
    return rows


def moving(
    sources: Sequence[JobState],
    target: JobState,
    *conditions: ColumnElement[bool],
    by_key: bool = False,
    **values: Any,
) -> Update:
    """The statement of a transition, to be part of a larger statement.

    The caller must pass jobs that end with it to `announce`. Raises: IllegalTransition.

    Args:
        by_key: True if the conditions name a few jobs, so that the planner uses their keys and no index on the state.
    """
    for source in sources:
        check_transition(source, target)
    if target.is_terminal:
        values["ended_at"] = sa.func.now()
    if target is not JobState.RUNNING:
        values["worker_id"] = None
    state = jobs.c.state + "" if by_key else jobs.c.state
    return sa.update(jobs).where(state.in_(sources), *conditions).values(state=target, **values)


def announce(db: Connection, rows: Sequence[Row[Any]]) -> None:
    """Write one delivery for each ended job with a webhook, in the transaction that ends the job.

    Args: rows: the columns ANNOUNCED of the updated jobs.
    """
    due = [_delivery_of(row) for row in rows if row.webhook_url is not None]
    if due:
        db.execute(sa.insert(deliveries), due)


def _delivery_of(row: Row[Any]) -> dict[str, Any]:
    event = event_of(JobState(row.state), row.finish_reason)
    return {"id": new_id(), "job_id": row.id, "app_id": row.app_id, "event": event, "url": row.webhook_url}
