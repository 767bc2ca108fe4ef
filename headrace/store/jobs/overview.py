"""Jobs of all apps for operators: their states, without their texts."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.domain.ids import oldest_id, time_of
from headrace.domain.queues import Lane
from headrace.domain.states import JobState
from headrace.tables import apps, job_retries, jobs

#: The most jobs that one list reads, in about 0.1 s.
LOOK_ROWS = 100_000
#: States with a partial index of their own.
_INDEXED = frozenset({JobState.FAILED, JobState.QUEUED, JobState.WAITING, JobState.RUNNING})


@dataclass(frozen=True, slots=True)
class ListedJob:
    """One job of a list.

    Attributes:
        app: its owner's name.
        retry_of: the failed job that it retries.
    """

    id: UUID
    app: str
    state: JobState
    lane: Lane
    queue: str
    attempt: int
    error_code: str | None
    error_message: str | None
    usd: Decimal
    created_at: datetime
    ended_at: datetime | None
    retry_of: UUID | None
    end_user: str | None
    model_requested: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs are listed.

    Attributes:
        app_id: only jobs of this app.
        is_dead: only failed jobs that were not retried.
        since, until: only jobs accepted at or after `since` and before `until`, by the time in their ids.
        before: only jobs with a smaller id: those after the last one of a page.
        error_code, end_user, model: only jobs with these values.
    """

    app_id: UUID | None = None
    is_dead: bool = False
    state: JobState | None = None
    lane: Lane | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: UUID | None = None
    error_code: str | None = None
    end_user: str | None = None
    model: str | None = None


def newest(db: Connection, wanted: Wanted, limit: int) -> list[ListedJob]:
    """The newest wanted jobs, newest first, among the `LOOK_ROWS` newest that an index finds."""
    near = _near(wanted).order_by(jobs.c.id.desc()).limit(LOOK_ROWS).subquery()
    read = [near.c[field.name] for field in fields(ListedJob) if field.name != "app"]
    statement = sa.select(apps.c.name.label("app"), *read).join(apps, apps.c.id == near.c.app_id)
    if wanted.is_dead:
        again = sa.select(job_retries.c.job_id).where(job_retries.c.job_id == near.c.id)
        statement = statement.where(~again.exists())
    narrow = {
        near.c.state: wanted.state,
        near.c.lane: wanted.lane,
        near.c.error_code: wanted.error_code,
        near.c.end_user: wanted.end_user,
        near.c.model_requested: wanted.model,
    }
    statement = statement.where(*(column == value for column, value in narrow.items() if value is not None))
    rows = db.execute(statement.order_by(near.c.id.desc()).limit(limit))
    return [ListedJob(**{**row._mapping, "state": JobState(row.state)}) for row in rows]


def looked_back_to(db: Connection, wanted: Wanted) -> datetime | None:
    """The `until` for the next list, which continues after the `LOOK_ROWS`; None if no older jobs exist."""
    older = _near(wanted).order_by(jobs.c.id.desc()).offset(LOOK_ROWS).limit(1)
    row = db.execute(older).one_or_none()
    return None if row is None else time_of(row.id) + timedelta(seconds=1)


def _near(wanted: Wanted) -> sa.Select[Any]:
    """Select by the conditions that an index serves: the key, the app, and the states in `_INDEXED`."""
    statement = sa.select(*(jobs.c[field.name] for field in fields(ListedJob) if field.name != "app"), jobs.c.app_id)
    if wanted.app_id is not None:
        statement = statement.where(jobs.c.app_id == wanted.app_id)
    if wanted.since is not None:
        statement = statement.where(jobs.c.id >= oldest_id(wanted.since))
    if wanted.until is not None:
        statement = statement.where(jobs.c.id < oldest_id(wanted.until))
    if wanted.before is not None:
        statement = statement.where(jobs.c.id < wanted.before)
    state = JobState.FAILED if wanted.is_dead else wanted.state
    if state in _INDEXED:
        # A literal: the planner cannot match a parameter with a partial index's condition.
        statement = statement.where(jobs.c.state == sa.literal_column(f"'{state}'"))
    return statement


def outcomes(db: Connection, job_ids: Sequence[UUID]) -> list[tuple[UUID, str, str | None]]:
    """Id, state and error code of the given jobs."""
    rows = db.execute(sa.select(jobs.c.id, jobs.c.state, jobs.c.error_code).where(jobs.c.id.in_(job_ids)))
    return [(row.id, row.state, row.error_code) for row in rows]
