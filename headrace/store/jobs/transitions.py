"""The one place where a job changes state: a compare-and-set against the transition table."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Row, Update

from headrace.domain.ids import new_id
from headrace.domain.states import JobState, check_transition
from headrace.policies.webhooks import event_of
from headrace.tables import deliveries, jobs

#: What `announce` reads of a job.
ANNOUNCED = ("id", "app_id", "state", "finish_reason", "webhook_url")


def transition(
    db: Connection, sources: Sequence[JobState], target: JobState, *conditions: ColumnElement[bool], **values: Any
) -> Sequence[Row[Any]]:
    """Move every job that is in `sources` and meets `conditions` to `target`, and return the rows as they are now.

    A job that meets them no more is left alone, so that of two actors at most one moves it. A job that ends gets
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
    """The statement of a transition, for one that is part of a larger statement.

    Of jobs that end with it, `announce` must be told. Raises: IllegalTransition.

    Args:
        by_key: the jobs are few, and named in the conditions: no index on the state is to be walked through for them.
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
    """Write one delivery per ended job that asked for a webhook, in the transaction in which it ended.

    Args: rows: the columns ANNOUNCED of the jobs, as they are now.
    """
    due = [_delivery_of(row) for row in rows if row.webhook_url is not None]
    if due:
        db.execute(sa.insert(deliveries), due)


def _delivery_of(row: Row[Any]) -> dict[str, Any]:
    event = event_of(JobState(row.state), row.finish_reason)
    return {"id": new_id(), "job_id": row.id, "app_id": row.app_id, "event": event, "url": row.webhook_url}
