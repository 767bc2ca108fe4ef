"""What one host of a pool does: the tokens per second that it serves when saturated, and the jobs that it runs at once.

A rate from minutes in which hosts had nothing to do would be too low, and would order too many hosts. So only minutes
count in which jobs waited while nearly all slots, or the KV caches, were full, and in which no host came or went.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import fmean, median
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.config import Settings
from headrace.domain.queues import lane_queues
from headrace.policies.lanes import kept_share
from headrace.tables import queue_rollups, queue_samples

#: How far back saturated minutes count, and how many of them, the newest first.
SINCE, NEWEST = timedelta(days=7), 200
#: With fewer saturated minutes the settings' rate is used.
ENOUGH = 20
#: Minutes whose mean is one value of the median. In one minute, a host may start only one or two long jobs.
TOGETHER = 5
#: A pool is saturated while jobs wait and so many of the slots are in use that are not kept for `high`.
FULL_SLOTS = 0.9
#: It also is while jobs wait and so much of its KV caches is in use.
FULL_KV = 0.85
#: The newest samples of which the most slots for each host count. A worker that loads its engine again has none.
SLOT_SAMPLES = 120

MINUTE_S = 60
MINUTE = timedelta(seconds=MINUTE_S)
_ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one host does.

    Attributes:
        tokens_per_s: tokens of jobs that it serves when it is saturated; None if that is neither measured nor set.
        slots_per_host: jobs that it runs at once.
        minutes: the saturated minutes that were measured. With fewer than `ENOUGH`, the rate is the settings'.
    """

    tokens_per_s: float | None
    slots_per_host: float
    minutes: int


def capacity(db: Connection, settings: Settings, pool: str, now: datetime) -> Capacity:
    """The measured capacity of the pool's hosts, or that of the settings until enough was seen."""
    of_pool, host_type = settings.pools[pool], settings.scaling.of_pool(pool).host_type
    slots = _slots_per_host(db, pool) or float(of_pool.max_running)
    full = FULL_SLOTS * (1.0 - kept_share(of_pool.max_running, of_pool.kv_high_share))
    rates = [float(rate) for rate in db.scalars(_saturated(pool, now, full))]
    if len(rates) >= ENOUGH:
        measured = slots * _typical(rates)
        if measured > 0:
            return Capacity(measured, slots, len(rates))
    set_rate = settings.hosts[host_type].tokens_per_s if host_type is not None else None
    return Capacity(set_rate, slots, len(rates))


def _typical(rates: Sequence[float]) -> float:
    """The median of the means of minutes that lie together; a rest of fewer minutes is left out."""
    starts = range(0, len(rates) - TOGETHER + 1, TOGETHER)
    return median(fmean(rates[start : start + TOGETHER]) for start in starts)


def _saturated(pool: str, now: datetime, full: float) -> sa.Select[Any]:
    """Tokens per slot and second of the newest saturated minutes, less those that filled empty slots.

    Args: full: the share of the slots in use from which on a pool is full.
    """
    minute = _minutes(pool, now).cte("minutes").c
    before, after = (
        {name: step(minute[name]).over(order_by=minute.at) for name in ("at", "slots", "running")}
        for step in (sa.func.lag, sa.func.lead)
    )
    is_steady = sa.and_(
        *(other["slots"] == minute.slots for other in (before, after)),
        before["at"] == minute.at - MINUTE,
        after["at"] == minute.at + MINUTE,
    )
    is_full = sa.or_(minute.running >= full * minute.slots, minute.kv_use >= FULL_KV)
    per_job = minute.tokens / sa.func.greatest(minute.started, 1)
    drained = minute.tokens - per_job * (after["running"] - before["running"]) / 2
    found = sa.select(
        minute.at,
        (drained / (minute.slots * MINUTE_S)).label("rate"),
        sa.and_(is_steady, is_full, minute.depth >= 1).label("counts"),
    ).subquery()
    return sa.select(found.c.rate).where(found.c.counts).order_by(found.c.at.desc()).limit(NEWEST)


def _minutes(pool: str, now: datetime) -> sa.Select[Any]:
    """The pool's minutes in which it had slots and no host drained: means and sums over its lanes."""
    row = _rows(pool, now - SINCE).subquery().c
    # The lanes are sampled together, so that each has a row for every sample.
    samples = sa.func.sum(row.samples)

    def mean(name: str) -> sa.ColumnElement[Any]:
        return sa.func.sum(row[name] * row.samples) / samples

    return (
        sa.select(
            row.at,
            (mean("depth") * len(lane_queues(pool))).label("depth"),
            (mean("running") * len(lane_queues(pool))).label("running"),
            # Not the lanes' sum: the sample of each lane reports the pool's.
            mean("slots").label("slots"),
            mean("kv_use").label("kv_use"),
            sa.func.sum(row.started).label("started"),
            sa.func.sum(row.started_tokens).label("tokens"),
        )
        .group_by(row.at)
        .having(mean("slots") > 0, sa.func.max(row.hosts_draining) == 0)
    )


def _rows(pool: str, since: datetime) -> sa.CompoundSelect[Any]:
    """Samples and minutes of the pool's lanes. Each sample is in one of both, if one statement reads them."""
    minute = sa.func.date_bin(MINUTE, queue_samples.c.at, _ORIGIN).label("at")
    samples = _of(queue_samples, pool, since, (minute, sa.literal(1).label("samples")))
    minutes = _of(queue_rollups, pool, since, (queue_rollups.c.at, queue_rollups.c.samples))
    return sa.union_all(samples, minutes.where(queue_rollups.c.span_s == MINUTE_S))


def _of(table: sa.Table, pool: str, since: datetime, span: Sequence[sa.ColumnElement[Any]]) -> sa.Select[Any]:
    names = ("depth", "running", "slots", "kv_use", "started", "started_tokens", "hosts_draining")
    columns = (sa.cast(table.c[name], sa.Float).label(name) for name in names)
    return sa.select(*span, *columns).where(table.c.queue.in_(lane_queues(pool)), table.c.at >= since)


def _slots_per_host(db: Connection, pool: str) -> float | None:
    """The most slots for each host in the newest samples with slots, or in the newest minutes; None without any."""
    for table in (queue_samples, queue_rollups):
        # Any lane: each reports the slots and hosts of the whole pool.
        seen = sa.select((sa.cast(table.c.slots, sa.Float) / table.c.hosts).label("slots"))
        seen = seen.where(table.c.queue == lane_queues(pool)[0], table.c.slots > 0, table.c.hosts > 0)
        if table is queue_rollups:
            seen = seen.where(table.c.span_s == MINUTE_S)
        newest = seen.order_by(table.c.at.desc()).limit(SLOT_SAMPLES).subquery()
        most: float | None = db.scalar(sa.select(sa.func.max(newest.c.slots)))
        if most:
            return most
    return None
