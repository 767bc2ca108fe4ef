"""Depth, hosts, KV use and waits over time, for charts."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.domain.queues import lane_queues
from headrace.domain.scaling import Action
from headrace.tables import decisions, jobs, queue_rollups, queue_samples

#: Decisions in one chart.
CHANGES_MAX = 300


@dataclass(frozen=True, slots=True)
class PoolMoment:
    """A pool in one span of time: the mean depth of all its lanes, its hosts, and the highest use of its KV caches.

    Attributes:
        at: the start of the span.
        kv_use: None where it was not reported.
    """

    at: datetime
    depth: float
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
    """The pool since a moment, in spans of this length, the oldest first; spans that were not observed are absent."""
    each = [
        sa.select(
            table.c.queue, table.c.at, sa.cast(table.c.depth, sa.Float).label("depth"), table.c.hosts, table.c.kv_use
        ).where(table.c.queue.in_(lane_queues(pool)), table.c.at >= since)
        for table in (queue_samples, queue_rollups)
    ]
    sample = sa.union_all(*each).subquery().c
    begin = sa.func.date_bin(span, sample.at, since).label("at")
    of_queue = (
        sa.select(
            begin,
            sa.func.avg(sample.depth).label("depth"),
            sa.func.avg(sample.hosts).label("hosts"),
            sa.func.max(sample.kv_use).label("kv_use"),
        )
        .group_by(begin, sample.queue)
        .subquery()
        .c
    )
    found = sa.select(
        of_queue.at, sa.func.sum(of_queue.depth), sa.func.max(of_queue.hosts), sa.func.max(of_queue.kv_use)
    )
    return [PoolMoment(*row) for row in db.execute(found.group_by(of_queue.at).order_by(of_queue.at))]


def wait_trend(db: Connection, since: datetime, span: timedelta) -> list[WaitMoment]:
    """Waits from acceptance to the first start since a moment, by lane, in spans of this length, the oldest first."""
    begin = sa.func.date_bin(span, jobs.c.started_at, since).label("at")
    wait_s = sa.func.extract("epoch", jobs.c.started_at - jobs.c.created_at)
    p95 = sa.cast(sa.func.percentile_cont(0.95).within_group(wait_s), sa.Float)
    found = (
        sa.select(begin, jobs.c.lane, sa.func.count(), p95)
        .where(jobs.c.started_at >= since)
        .group_by(begin, jobs.c.lane)
        .order_by(begin, jobs.c.lane)
    )
    return [WaitMoment(*row) for row in db.execute(found)]


def host_changes(db: Connection, pool: str, since: datetime) -> list[HostChange]:
    """The newest decisions since a moment that order or drain hosts, the oldest first."""
    row = decisions.c
    newest = (
        sa.select(row.at, row.action, row.target, row.reason)
        .where(row.pool == pool, row.at >= since, row.action != Action.HOLD)
        .order_by(row.at.desc())
        .limit(CHANGES_MAX)
    )
    return [HostChange(*each) for each in reversed(db.execute(newest).all())]
