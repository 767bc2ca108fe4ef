"""Jobs of all apps, as operators see them: where each stands, and nothing of what it says."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.jobs import JobState
from headrace.tables import apps, jobs


@dataclass(frozen=True, slots=True)
class Listed:
    """One job of a list.

    Attributes:
        app: its owner's name.
        retry_of: the failed job that it is the retry of.
    """

    id: UUID
    app: str
    state: JobState
    queue: str
    attempt: int
    error_code: str | None
    error_message: str | None
    usd: Decimal
    created_at: datetime
    ended_at: datetime | None
    retry_of: UUID | None


def newest(db: Connection, *, is_dead: bool, app_id: UUID | None = None, limit: int) -> list[Listed]:
    """The newest jobs, newest first.

    Args:
        is_dead: only those that have failed and were not retried.
        app_id: only this app's.
    """
    read = [jobs.c[field.name] for field in fields(Listed) if field.name != "app"]
    statement = sa.select(apps.c.name.label("app"), *read).join(apps, apps.c.id == jobs.c.app_id)
    if is_dead:
        again = jobs.alias("again")
        is_retried = sa.select(again.c.id).where(again.c.retry_of == jobs.c.id).exists()
        statement = statement.where(jobs.c.state == sa.literal_column(f"'{JobState.FAILED}'"), ~is_retried)
    if app_id is not None:
        statement = statement.where(jobs.c.app_id == app_id)
    rows = db.execute(statement.order_by(jobs.c.id.desc()).limit(limit))
    return [Listed(**{**row._mapping, "state": JobState(row.state)}) for row in rows]


def outcomes(db: Connection, job_ids: Sequence[UUID]) -> list[tuple[UUID, str, str | None]]:
    """Id, state and error code of the given jobs."""
    rows = db.execute(sa.select(jobs.c.id, jobs.c.state, jobs.c.error_code).where(jobs.c.id.in_(job_ids)))
    return [(row.id, row.state, row.error_code) for row in rows]
