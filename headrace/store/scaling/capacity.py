"""What a host is worth: the tokens that it serves and the jobs that it runs, how long it takes to come, and what the
paid API costs instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from statistics import fmean, median
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.config import HostTypeSettings, Settings
from headrace.domain.attempts import Usage
from headrace.domain.fleet import ProcessKind, Vacancy
from headrace.domain.hosts import HostEnd
from headrace.domain.limits import SpendingLimits, shortfall
from headrace.domain.queues import OVERFLOW, lane_queues
from headrace.errors import UnknownPrice
from headrace.policies.lanes import kept_share
from headrace.policies.pricing import cost
from headrace.store.fleet import processes
from headrace.store.money import budgets, tariffs
from headrace.tables import hosts, ledger, queue_rollups, queue_samples, workers

#: How far back saturated minutes count, and how many of them, the newest first.
MINUTES_SINCE, NEWEST_MINUTES = timedelta(days=7), 200
#: With fewer saturated minutes the settings' rate is used.
ENOUGH_MINUTES = 20
#: Minutes whose mean is one value of the median. In one minute, a host may start only one or two long jobs.
TOGETHER = 5
#: A pool is saturated while jobs wait and this share of the slots that are not kept for `high` is in use.
FULL_SLOTS = 0.9
#: A pool is also saturated while jobs wait and this share of its KV caches is in use.
FULL_KV = 0.85
#: The newest samples, among which a host's most slots are looked up. A worker that reloads its engine reports none.
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


def capacity_of(db: Connection, settings: Settings, pool: str, now: datetime) -> Capacity:
    """The measured capacity of the pool's hosts, or that of the settings until enough was seen."""
    of_pool, host_type = settings.pools[pool], settings.scaling.of_pool(pool).host_type
    slots = _slots_per_host(db, pool) or float(of_pool.max_running)
    full = FULL_SLOTS * (1.0 - kept_share(of_pool.max_running, of_pool.kv_high_share))
    rates = [float(rate) for rate in db.scalars(_saturated(pool, now, full))]
    if len(rates) >= ENOUGH_MINUTES:
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
    return sa.select(found.c.rate).where(found.c.counts).order_by(found.c.at.desc()).limit(NEWEST_MINUTES)


def _minutes(pool: str, now: datetime) -> sa.Select[Any]:
    """The pool's minutes in which it had slots and no host drained: means and sums over its lanes."""
    row = _rows(pool, now - MINUTES_SINCE).subquery().c
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


#: A host that takes so much longer than 99 % of its type did is written off.
WRITE_OFF_FACTOR = 1.5
#: The time doubles for each order in a row without a host, at most this many times.
MOST_DOUBLINGS = 3
#: With fewer measured hosts the settings' time is used.
ENOUGH_HOSTS = 10
#: The least time until a host on order is expected, in seconds, however late it is.
LEAST_LEFT_S = 5.0
#: A worker process that was seen within this time, in seconds, is likely being restarted.
RESTART_S = 60.0
#: The newest hosts that are measured.
NEWEST_HOSTS = 200
#: How long a local process takes to start and to load a small model, beyond `scaling.local.provision_s`.
LOCAL_START_S = 15.0
_DEFAULT_S: float = HostTypeSettings.model_fields["provision_s"].default


@dataclass(frozen=True, slots=True)
class Provisioning:
    """The times that 90 and 99 % of the hosts meet, in seconds.

    Attributes:
        count: the hosts that were measured. With fewer than `ENOUGH`, the times are the settings', and 99 % are taken
            to need as long as the slowest of them did, so that a time that is set too low writes no host off.
    """

    count: int
    p90_s: float
    p99_s: float


def provisioning(db: Connection, settings: Settings, instance_type: str | None) -> Provisioning:
    """The times of the type's newest ordered hosts; of the settings until enough were measured.

    Adopted hosts do not count: their lease began when they were found.
    """
    took_s = sa.func.extract("epoch", hosts.c.ready_at - hosts.c.requested_at)
    is_of_type = hosts.c.instance_type.is_not_distinct_from(instance_type)
    measured = sa.select(took_s.label("took_s")).where(is_of_type, hosts.c.ready_at.is_not(None), ~hosts.c.is_adopted)
    newest = measured.order_by(hosts.c.requested_at.desc()).limit(NEWEST_HOSTS).subquery()
    times = sa.func.percentile_cont(sa.literal([0.9, 0.99], sa.ARRAY(sa.Float))).within_group(newest.c.took_s)
    count, quantiles = db.execute(sa.select(sa.func.count(), times).select_from(newest)).one()
    if count >= ENOUGH_HOSTS:
        return Provisioning(count, *map(float, quantiles))
    known = _as_set(count, settings, instance_type)
    return replace(known, p99_s=max(known.p99_s, float(quantiles[-1]))) if count else known


def _as_set(count: int, settings: Settings, instance_type: str | None) -> Provisioning:
    if instance_type in settings.hosts:
        set_s = settings.hosts[instance_type].provision_s
        return Provisioning(count, set_s, set_s)
    if instance_type is None and settings.scaling.actuator == "local":
        local_s = settings.scaling.local.provision_s + LOCAL_START_S
        # A large model may load for minutes, and a host that is written off too early ends.
        return Provisioning(count, local_s, max(local_s, _DEFAULT_S))
    return Provisioning(count, _DEFAULT_S, _DEFAULT_S)


def write_off(db: Connection, settings: Settings, instance_type: str | None) -> timedelta:
    """The time after which a host of this type that is not ready yet never will be.

    A host that is written off is ended, so it is never measured. If hosts take longer than they used to, or than
    `provision_s` says, all would be written off forever: that is why the time grows until one comes.
    """
    doublings = min(_failed_orders(db, instance_type), MOST_DOUBLINGS)
    return timedelta(seconds=WRITE_OFF_FACTOR * provisioning(db, settings, instance_type).p99_s * 2**doublings)


def vacancy(db: Connection, settings: Settings, pool: str) -> Vacancy:
    """What is known of the next worker of a pool that has none."""
    kind = ProcessKind.OVERFLOW if pool == OVERFLOW else ProcessKind.GPU
    ordered = (hosts.c.pool == pool, hosts.c.ended_at.is_(None), hosts.c.drain_at.is_(None), ~hosts.c.is_adopted)
    is_coming = (*ordered, hosts.c.ready_at.is_(None), hosts.c.end_reason.is_(None))
    age_s = sa.cast(sa.extract("epoch", sa.func.now() - hosts.c.requested_at), sa.Float)
    first = sa.select(hosts.c.instance_type, age_s).where(*is_coming).order_by(hosts.c.requested_at).limit(1)
    if (row := db.execute(first).first()) is not None:
        instance_type, waited_s = row
        left_s = provisioning(db, settings, instance_type).p90_s - waited_s
        return Vacancy(pool, "host", round(max(LEAST_LEFT_S, left_s), 1))
    silent_s = processes.silent_s(db, kind, None if pool == OVERFLOW else pool)
    if silent_s is not None and silent_s <= RESTART_S:
        return Vacancy(pool, "process")
    scales = pool != OVERFLOW and settings.scaling.of_pool(pool).max_hosts > 0
    return Vacancy(pool, "autoscaler" if scales and processes.scaling_mode(db) == "active" else None)


def _failed_orders(db: Connection, instance_type: str | None) -> int:
    """The orders since the last host that came whose hosts were written off. Hosts of an order share their time."""
    is_of_type = (hosts.c.instance_type.is_not_distinct_from(instance_type), ~hosts.c.is_adopted)
    came_at = sa.select(sa.func.max(hosts.c.requested_at)).where(*is_of_type, hosts.c.ready_at.is_not(None))
    is_later = hosts.c.requested_at > sa.func.coalesce(came_at.scalar_subquery(), sa.text("'-infinity'::timestamptz"))
    failed = sa.select(sa.func.count(hosts.c.requested_at.distinct())).where(
        *is_of_type, is_later, hosts.c.ready_at.is_(None), hosts.c.end_reason == HostEnd.WRITTEN_OFF
    )
    return db.scalar(failed) or 0


#: The newest entries of the ledger, of all pools, in which the pool's are looked for.
ENTRIES = 5_000
#: The age up to which entries count.
ENTRIES_SINCE = timedelta(days=7)
#: With fewer paid jobs of the pool, the price list and the pool's mean job count.
ENOUGH_PAID = 20
#: The paid API is closed once its workers have been away for so long. A restart is shorter.
AWAY = timedelta(minutes=5)

NO_LIMITS = SpendingLimits(None, None)


@dataclass(frozen=True, slots=True)
class _MeanJob:
    """The pool's recent jobs. Attributes: paid: how many the paid API answered. paid_usd: their mean price."""

    paid: int
    paid_usd: Decimal | None
    prompt_tokens: float
    output_tokens: float


def job_usd(db: Connection, settings: Settings, pool: str) -> float | None:
    """The mean price of the pool's jobs at the paid API; None if it is unknown or if jobs may not go there.

    They may while a key and a price are set, a worker calls the API, and the budget of all apps together has room for
    a job. An app's own budget opens the API to that app alone, and so replaces no host.
    """
    if settings.openai_api_key is None or not _has_worker(db):
        return None
    job = _mean_job(db, pool)
    try:
        price = tariffs.in_force(db, settings).api_price(settings.pools[pool].model)
    except UnknownPrice:
        return None
    if job is None:
        return None
    usd = job.paid_usd
    if usd is None or job.paid < ENOUGH_PAID:
        usd = cost(price, Usage(round(job.prompt_tokens), round(job.output_tokens))).usd
    balances = budgets.balances(db, settings.budgets)
    # Without any limit the budget is closed, too.
    lack = shortfall(usd, balances.used_usd(""), NO_LIMITS, balances.together)
    return float(usd) if lack is None else None


def _has_worker(db: Connection) -> bool:
    seen = (workers.c.pool == OVERFLOW, workers.c.lease_until > sa.func.now() - AWAY)
    return bool(db.scalar(sa.select(sa.select(workers.c.id).where(*seen).exists())))


def _mean_job(db: Connection, pool: str) -> _MeanJob | None:
    """The pool's jobs among the newest entries; None without any."""
    newest = sa.select(ledger).order_by(ledger.c.id.desc()).limit(ENTRIES).subquery().c
    is_paid = newest.kind == "api"
    means = sa.select(
        sa.func.count().filter(is_paid),
        sa.func.avg(newest.usd).filter(is_paid),
        sa.func.avg(newest.prompt_tokens),
        sa.func.avg(newest.output_tokens),
    ).where(newest.pool == pool, newest.kind.in_(("compute", "api")), newest.at > sa.func.now() - ENTRIES_SINCE)
    paid, paid_usd, prompt_tokens, output_tokens = db.execute(means).one()
    return None if prompt_tokens is None else _MeanJob(paid, paid_usd, float(prompt_tokens), float(output_tokens))
