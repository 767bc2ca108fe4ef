"""How long jobs waited and ran, and how they ended, in the buckets of a histogram.

As in `demand`, each query uses an index of its own, and the times are those of `clock.settled`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import ARRAY

from headrace.domain.fleet import EndedJobs, TimedJobs
from headrace.domain.queues import Route
from headrace.domain.states import JobState
from headrace.store.fleet.demand import oldest_entry
from headrace.tables import jobs, ledger

#: The jobs, the last started first, by which a pool's run time is learned.
RUNS = 500
#: How a job may end between two attempts. Literals, as in the index's condition.
_MAY_END_BETWEEN = sa.or_(
    jobs.c.state == sa.literal_column("'cancelled'"), jobs.c.error_code == sa.literal_column("'deadline_exceeded'")
)


def waits(db: Connection, since: datetime, until: datetime, bounds_s: Sequence[float]) -> list[TimedJobs]:
    """The waits of the jobs that first started after `since`, up to `until`, from acceptance to that start.

    Args: bounds_s: of the buckets, ascending.
    """
    wait_s = _seconds(jobs.c.created_at, jobs.c.started_at)
    started = sa.select(jobs.c.queue, wait_s.label("s")).where(jobs.c.started_at > since, jobs.c.started_at <= until)
    row = started.subquery().c
    bucket = _bucket(row.s, bounds_s).label("bucket")
    counted = sa.select(row.queue, bucket, sa.func.count().label("jobs"), sa.func.sum(row.s).label("seconds"))
    return [TimedJobs(**each._mapping) for each in db.execute(counted.group_by(row.queue, bucket))]


def ends(db: Connection, since: datetime, until: datetime, bounds_s: Sequence[float]) -> list[EndedJobs]:
    """The jobs that ended after `since`, up to `until`: on a worker, between two attempts, or without a start.

    `ended_at` has indexes for the last two alone, because one for all would slow every end.
    """
    entry, job = ledger.c, jobs.c
    # The transaction in which a worker's job ends also books the attempt, so both carry one time.
    new = (entry.id > oldest_entry(db, since), entry.at > since, entry.at <= until)
    booked = sa.select(entry.job_id, entry.at).where(*new).distinct().subquery().c
    columns = (job.queue, job.state, sa.func.coalesce(job.error_code, "").label("error_code"))
    run_s = _seconds(job.started_at, job.ended_at).label("s")
    is_end = sa.and_(job.id == booked.job_id, job.ended_at == booked.at)
    on_worker = sa.select(*columns, run_s).where(is_end, job.started_at.is_not(None))
    is_lately = (job.ended_at > since, job.ended_at <= until)
    is_booked = sa.select(entry.id).where(entry.job_id == job.id, entry.at == job.ended_at).exists()
    between = sa.select(*columns, run_s).where(job.started_at.is_not(None), _MAY_END_BETWEEN, *is_lately, ~is_booked)
    unstarted = sa.select(*columns, sa.cast(None, sa.Float)).where(job.started_at.is_(None), *is_lately)
    row = sa.union_all(on_worker, between, unstarted).subquery().c
    key = (row.queue, row.state, row.error_code, _bucket(row.s, bounds_s).label("bucket"))
    total_s = sa.func.coalesce(sa.func.sum(row.s), 0.0).label("seconds")
    counted = sa.select(*key, sa.func.count().label("jobs"), total_s).group_by(*key)
    return [EndedJobs(**each._mapping) for each in db.execute(counted)]


def run_s_per_token(db: Connection, pool: str, since: datetime) -> float | None:
    """Seconds that the pool's jobs ran for each token of their answers; None if none that started since has succeeded.

    A ratio of sums: the time to read a prompt is spread over the tokens, and a long answer counts for more.
    """
    row = jobs.c
    is_own = (row.pool == pool, row.route == Route.POOL, row.state == JobState.SUCCEEDED, row.output_tokens > 0)
    newest = sa.select(_seconds(row.started_at, row.ended_at).label("s"), row.output_tokens.label("tokens"))
    runs = newest.where(row.started_at > since, *is_own).order_by(row.started_at.desc()).limit(RUNS).subquery().c
    found: float | None = db.scalar(sa.select(sa.func.sum(runs.s) / sa.func.sum(runs.tokens)))
    return found


def _seconds(since: sa.Column[Any], until: sa.Column[Any]) -> sa.ColumnElement[float]:
    """The time between two moments. Each is the start of a transaction, so the later one may be dated before."""
    return sa.cast(sa.func.greatest(sa.func.extract("epoch", until - since), 0), sa.Float)


def _bucket(seconds: sa.ColumnElement[float], bounds_s: Sequence[float]) -> sa.ColumnElement[int]:
    """How many of the bounds are below the time. NULL for NULL.

    Postgres counts the bounds that are not above a value. With all signs reversed these are those that are not below.
    """
    reversed_bounds = sa.cast([-bound for bound in reversed(bounds_s)], ARRAY(sa.Float))
    return len(bounds_s) - sa.func.width_bucket(-seconds, reversed_bounds, type_=sa.Integer)
