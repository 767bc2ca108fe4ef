"""What became of the fleet and its queues over time: for histograms, for charts, and as roll-ups of old samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import ARRAY, insert

from headrace.domain.fleet import EndedJobs, TimedJobs
from headrace.domain.queues import Route, lane_queues
from headrace.domain.scaling import Action
from headrace.domain.states import JobState
from headrace.store.fleet.observations import FORGET_ROWS, delete_oldest, oldest_entry
from headrace.tables import decisions, jobs, ledger, queue_rollups, queue_samples

# How long jobs waited and ran, and how they ended, in the buckets of a histogram. As for `activity`, each query uses an
# index of its own, and the times are those of `clock.settled`.

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


# Depth, hosts, KV use and waits over time, for charts.

#: Decisions in one chart.
CHANGES_MAX = 300


@dataclass(frozen=True, slots=True)
class PoolMoment:
    """A pool in one span of time: the depth of all its lanes, its hosts, and the highest use of its KV caches.

    Attributes:
        at: the start of the span.
        depth, most: the mean and the highest depth.
        kv_use: None where it was not reported.
    """

    at: datetime
    depth: float
    most: float
    hosts: float
    kv_use: float | None


@dataclass(frozen=True, slots=True)
class WaitMoment:
    """How long the jobs of one lane waited that started in one span of time, which begins at `at`."""

    at: datetime
    lane: str
    jobs: int
    p95_wait_s: float


@dataclass(frozen=True, slots=True)
class HostChange:
    """A decision that orders or drains hosts. Attributes: target: the hosts that it wants."""

    at: datetime
    action: str
    target: int
    reason: str


def pool_trend(db: Connection, pool: str, since: datetime, span: timedelta) -> list[PoolMoment]:
    """The pool since a moment, in spans of this length, the oldest first; spans that were not observed are absent.

    Spans begin at round times, so that a span is the same whenever it is looked at. The first one is whole.
    """
    each = [
        sa.select(
            *(table.c.queue, table.c.at, sa.cast(table.c.depth, sa.Float).label("depth"), most.label("most")),
            *(table.c.hosts, table.c.kv_use, weight.label("weight")),
        ).where(table.c.queue.in_(lane_queues(pool)), table.c.at >= _start_of(span, sa.literal(since)))
        for table, most, weight in (
            (queue_samples, queue_samples.c.depth, sa.literal(1)),
            (queue_rollups, queue_rollups.c.most_depth, queue_rollups.c.samples),
        )
    ]
    samples = sa.union_all(*each).cte("samples")
    sample = samples.c
    # All lanes of a pool are sampled at one time.
    of_moment = sa.select(sample.at, sa.func.sum(sample.most).label("most")).group_by(sample.at).cte("moments").c
    peak_at = _start_of(span, of_moment.at).label("at")
    peaks = sa.select(peak_at, sa.func.max(of_moment.most).label("most")).group_by(peak_at).cte("peaks").c
    begin = _start_of(span, sample.at).label("at")
    of_queue = (
        sa.select(
            begin,
            (sa.func.sum(sample.depth * sample.weight) / sa.func.sum(sample.weight)).label("depth"),
            (sa.func.sum(sample.hosts * sample.weight) / sa.func.sum(sample.weight)).label("hosts"),
            sa.func.max(sample.kv_use).label("kv_use"),
        )
        .group_by(begin, sample.queue)
        .subquery()
        .c
    )
    found = sa.select(
        of_queue.at,
        sa.func.sum(of_queue.depth).label("depth"),
        sa.cast(sa.func.max(peaks.most), sa.Float).label("most"),
        sa.func.max(of_queue.hosts).label("hosts"),
        sa.func.max(of_queue.kv_use).label("kv_use"),
    ).where(peaks.at == of_queue.at)
    return [PoolMoment(**row._mapping) for row in db.execute(found.group_by(of_queue.at).order_by(of_queue.at))]


def wait_trend(db: Connection, since: datetime, span: timedelta) -> list[WaitMoment]:
    """Waits from acceptance to the first start since a moment, by lane, in spans as of `pool_trend`."""
    begin = _start_of(span, jobs.c.started_at).label("at")
    wait_s = sa.func.extract("epoch", jobs.c.started_at - jobs.c.created_at)
    p95 = sa.cast(sa.func.percentile_cont(0.95).within_group(wait_s), sa.Float)
    found = (
        sa.select(begin, jobs.c.lane, sa.func.count().label("jobs"), p95.label("p95_wait_s"))
        .where(jobs.c.started_at >= _start_of(span, sa.literal(since)))
        .group_by(begin, jobs.c.lane)
        .order_by(begin, jobs.c.lane)
    )
    return [WaitMoment(**row._mapping) for row in db.execute(found)]


def host_changes(db: Connection, pool: str, since: datetime) -> list[HostChange]:
    """The newest decisions since a moment that order or drain hosts, the oldest first."""
    row = decisions.c
    newest = (
        sa.select(row.at, row.action, row.target, row.reason)
        .where(row.pool == pool, row.at >= since, row.action != Action.HOLD)
        .order_by(row.at.desc())
        .limit(CHANGES_MAX)
    )
    return [HostChange(**each._mapping) for each in reversed(db.execute(newest).all())]


# Roll-ups: samples of queues become minutes after a day, and minutes become hours after a week. One statement deletes a
# batch of rows and adds them to their spans. So each sample is in exactly one row of `queue_samples` and
# `queue_rollups`, for a reader too, if one statement reads both tables.

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
KEEP_SAMPLES, KEEP_MINUTES, KEEP_HOURS = timedelta(days=1), timedelta(days=7), timedelta(days=365)

#: Where spans are counted from: whole minutes and hours of UTC, whatever the time zone of the session.
_ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)
_KEY = ("queue", "span_s", "at")
_SUMS = (
    "samples",
    "arrivals",
    "refused",
    "started",
    "started_tokens",
    "offered",
    "offered_tokens",
    "spilled",
    "finished",
    "discounted",
    "discounted_tokens",
    "ended",
    "failed",
    "expired",
)
_MEANS = ("depth", "running", "slots", "hosts", "hosts_requested", "hosts_draining", "kv_use")
_MAXIMA = ("most_depth", "oldest_wait_s")


@dataclass(frozen=True, slots=True)
class _Source:
    """Rows that are rolled up.

    Attributes:
        columns: as those of `queue_rollups`.
        is_due: those that are old enough.
    """

    columns: Sequence[sa.ColumnElement[Any]]
    at: sa.Column[datetime]
    is_due: Sequence[sa.ColumnElement[bool]]


def roll_up(db: Connection) -> int:
    """Roll up the oldest samples and minutes, and delete the oldest hours, those that are old enough.

    Each step takes up to `FORGET_ROWS` rows, and the rest of the last one's span. A span is taken whole, unless a row
    of it is written later; that row is added to it by a later call. Returns: rows that were rolled up or deleted.
    """
    moved = _roll_up(db, _samples(), MINUTE) + _roll_up(db, _minutes(), HOUR)
    is_hour = queue_rollups.c.span_s == HOUR.total_seconds()
    return moved + delete_oldest(db, queue_rollups.c.at, sa.func.now() - KEEP_HOURS, is_hour)


def _samples() -> _Source:
    same = queue_samples.c
    shared = (same[name] for name in (*_SUMS[1:], *_MEANS, "oldest_wait_s"))
    columns = (same.queue, same.at, sa.literal(1).label("samples"), same.depth.label("most_depth"), *shared)
    return _Source(columns, same.at, [same.at < _start_of(MINUTE, sa.func.now() - KEEP_SAMPLES)])


def _minutes() -> _Source:
    """The minutes of whole hours: an hour that still has samples waits for them."""
    same = queue_rollups.c
    columns = [column for column in same if column.name != "span_s"]
    old = _start_of(HOUR, sa.func.now() - KEEP_MINUTES)
    unfinished = _start_of(HOUR, sa.select(sa.func.min(queue_samples.c.at)).scalar_subquery())
    # `least` ignores NULL: there may be no samples.
    return _Source(columns, same.at, [same.span_s == MINUTE.total_seconds(), same.at < sa.func.least(old, unfinished)])


def _roll_up(db: Connection, source: _Source, span: timedelta) -> int:
    """Move the oldest rows of the source into spans of this length. Returns: rows that were moved."""
    full = sa.select(_start_of(span, source.at) + span).where(*source.is_due).order_by(source.at)
    until = sa.func.coalesce(full.offset(FORGET_ROWS - 1).limit(1).scalar_subquery(), sa.text("'infinity'"))
    moved = sa.delete(source.at.table).where(*source.is_due, source.at < until).returning(*source.columns).cte("moved")
    spans = _spans(moved, span).cte("spans")
    put = insert(queue_rollups).from_select(list(spans.c.keys()), sa.select(spans))
    put = put.on_conflict_do_update(index_elements=_KEY, set_=_merged(put.excluded))
    count = sa.select(sa.func.count()).select_from(moved)
    return db.scalar(count.add_cte(put.cte("put"))) or 0


def _spans(rows: sa.CTE, span: timedelta) -> sa.Select[Any]:
    """The rows by their queues and spans."""
    start, weight = _start_of(span, rows.c.at), rows.c.samples
    sums = (sa.cast(sa.func.sum(rows.c[name]), queue_rollups.c[name].type).label(name) for name in _SUMS)
    means = (
        (sa.func.sum(rows.c[name] * weight) / sa.func.sum(weight).filter(rows.c[name].is_not(None))).label(name)
        for name in _MEANS
    )
    maxima = (sa.func.max(rows.c[name]).label(name) for name in _MAXIMA)
    key = (rows.c.queue, sa.literal(round(span.total_seconds())).label("span_s"), start.label("at"))
    return sa.select(*key, *sums, *means, *maxima).group_by(rows.c.queue, start)


def _merged(new: Any) -> dict[str, sa.ColumnElement[Any]]:
    """A span's row together with rows of the span that came late."""
    old = queue_rollups.c
    sums = {name: old[name] + new[name] for name in _SUMS}
    maxima = {name: sa.func.greatest(old[name], new[name]) for name in _MAXIMA}
    # NULL if one of both is NULL: `kv_use` was not reported.
    means = {name: (old[name] * old.samples + new[name] * new.samples) / (old.samples + new.samples) for name in _MEANS}
    return sums | maxima | {name: sa.func.coalesce(mean, old[name], new[name]) for name, mean in means.items()}


def _start_of(span: timedelta, at: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The start of the span in which a time is."""
    return sa.func.date_bin(span, at, _ORIGIN)
