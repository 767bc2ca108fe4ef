"""Workers and their leases: one row per process, renewed each second, by the database's clock; and their hosts."""

from collections import defaultdict
from dataclasses import asdict
from datetime import timedelta
from functools import cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select
from sqlalchemy.dialects.postgresql import insert

from headrace.domain.attempts import HeldAttempt
from headrace.domain.fleet import NO_WORKER, Fleet, PoolGpus, Renewal, WorkerInfo, WorkerReport
from headrace.domain.hosts import HostCounts, HostEnd
from headrace.domain.states import JobState
from headrace.policies.answers import ExpectedOutputs, from_fields, to_fields, together
from headrace.store.sql import Statement, delete_chosen
from headrace.store.states import IS_RUNNING
from headrace.tables import hosts, jobs, worker_samples, workers

_IS_LIVE = hosts.c.ended_at.is_(None)
_IS_WRITTEN_OFF = hosts.c.end_reason.is_not_distinct_from(HostEnd.WRITTEN_OFF)


def live_workers() -> sa.Select[Any]:
    """Select each live worker: its id, its pool, its host, and whether it is draining.

    The host is the id of its lease. A worker without a lease has a host of its own name: no decision ordered it, or
    its lease has ended.
    """
    names_it = sa.or_(hosts.c.id == workers.c.host_id, hosts.c.provider_id == workers.c.host_id)
    lease = (
        sa.select(hosts.c.id, hosts.c.drain_at)
        .where(hosts.c.pool == workers.c.pool, _IS_LIVE, names_it)
        # One at most, so that no worker counts twice: a host may be adopted before its order has its provider's id.
        .order_by(hosts.c.id != workers.c.host_id)
        .limit(1)
        .lateral("lease")
    )
    is_draining = sa.or_(workers.c.draining, lease.c.drain_at.is_not(None))
    return (
        sa.select(
            workers.c.id,
            workers.c.pool,
            sa.func.coalesce(lease.c.id, workers.c.host_id).label("host"),
            lease.c.id.label("lease"),
            is_draining.label("is_draining"),
        )
        .join_from(workers, lease, sa.true(), isouter=True)
        .where(workers.c.lease_until > sa.func.now())
    )


def count_hosts(db: Connection) -> dict[str, HostCounts]:
    """The hosts of each pool by their state; a pool without any is absent."""
    live = live_workers().subquery()
    present = (
        sa.select(live.c.pool, live.c.host, live.c.lease, sa.func.bool_and(live.c.is_draining).label("is_draining"))
        .group_by(live.c.pool, live.c.host, live.c.lease)
        .subquery()
    )
    leases = sa.select(hosts).where(_IS_LIVE, sa.not_(_IS_WRITTEN_OFF)).subquery()
    here = sa.and_(present.c.lease == leases.c.id, present.c.pool == leases.c.pool)
    is_here, is_draining = present.c.host.is_not(None), sa.or_(leases.c.drain_at.is_not(None), present.c.is_draining)
    both = sa.select(
        sa.func.coalesce(leases.c.pool, present.c.pool).label("pool"),
        sa.case((is_draining, "draining"), (is_here, "ready"), (leases.c.ready_at.is_(None), "requested")).label(
            "state"
        ),
        sa.func.count().label("hosts"),
    ).select_from(leases.outerjoin(present, here, full=True))
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for pool, state, num_hosts in db.execute(both.group_by(sa.literal_column("1"), sa.literal_column("2"))):
        if state is not None:
            counts[pool][state] = num_hosts
    return {pool: HostCounts(**states) for pool, states in counts.items()}


#: The age up to which workers' samples count for the present use of their KV caches, in seconds.
RECENT_S = 15.0
#: The most rows that one transaction deletes.
FORGET_ROWS = 5_000

_RENEW = Statement("renew")


def register(db: Connection, info: WorkerInfo, lease_s: float) -> None:
    """Add this process's row, ready and with its first lease. Safe to repeat, since a commit's reply can be lost."""
    values = {name: getattr(info, name) for name in info.__dataclass_fields__}
    lease_until = sa.func.now() + timedelta(seconds=lease_s)
    added = insert(workers).values(lease_until=lease_until, ready=True, **values)
    db.execute(added.on_conflict_do_update(index_elements=["id"], set_={"lease_until": added.excluded.lease_until}))


def renew(db: Connection, worker_id: UUID, lease_s: float, report: WorkerReport) -> Renewal:
    """Renew the lease. The same round trip returns what the worker must stop, and whether its host drains."""
    rows = _RENEW.run(db, worker_id=worker_id, lease_s=lease_s, **asdict(report))
    attempts = tuple(_held_attempt(row) for row in rows if row.id is not None)
    confined = {UUID(app): None if job is None else UUID(job) for app, job in rows[0].confined or ()}
    return Renewal(attempts, rows[0].drains, confined)


def _held_attempt(row: Row[Any]) -> HeldAttempt:
    if row.cancel_requested_at is not None:
        return HeldAttempt(row.id, row.enqueue_no, "cancelled")
    return HeldAttempt(row.id, row.enqueue_no, "deadline_exceeded" if row.is_overdue else None)


def disown(db: Connection, worker_id: UUID, held: HeldAttempt) -> None:
    """Give up an attempt that the worker does not run: `rescue` then takes the job as if its worker were dead."""
    this = (jobs.c.id == held.job_id, jobs.c.worker_id == worker_id, jobs.c.enqueue_no == held.enqueue_no)
    db.execute(sa.update(jobs).where(*this, jobs.c.state == JobState.RUNNING).values(worker_id=NO_WORKER))


def learn(db: Connection, worker_id: UUID, outputs: ExpectedOutputs) -> None:
    """Store the expected answer lengths that this worker has learned."""
    db.execute(sa.update(workers).where(workers.c.id == worker_id).values(expected_outputs=to_fields(outputs)))


def expected_outputs(db: Connection) -> dict[str, ExpectedOutputs]:
    """The expected answer lengths of each pool, combined from its live workers."""
    learned = sa.select(workers.c.pool, workers.c.expected_outputs).where(
        workers.c.lease_until > sa.func.now(), workers.c.expected_outputs.is_not(None)
    )
    pools = defaultdict[str, list[ExpectedOutputs]](list)
    for pool, fields in db.execute(learned):
        pools[pool].append(from_fields(fields))
    return {pool: together(several) for pool, several in pools.items()}


def retire(db: Connection, worker_id: UUID, reason: str | None = None) -> None:
    """End the lease now; the next `rescue` puts the worker's remaining jobs back.

    Args:
        reason: why the worker retired itself; None if it was stopped.
    """
    db.execute(sa.update(workers).where(workers.c.id == worker_id).values(**_retired(reason)))


def retire_all(db: Connection, pool: str, reason: str) -> None:
    """End the leases of all workers of a pool, whose processes are known to have ended."""
    live = sa.update(workers).where(workers.c.pool == pool, workers.c.lease_until > sa.func.now())
    db.execute(live.values(**_retired(reason)))


def _retired(reason: str | None) -> dict[str, Any]:
    ended = {"lease_until": sa.func.now(), "stopped_at": sa.func.now(), "ready": False, "running": 0}
    return {**ended, "stop_reason": reason}


def forget_old(db: Connection, keep_days: int) -> int:
    """Delete workers whose lease ended more than `keep_days` ago, at most `FORGET_ROWS`; returns how many.

    A worker with a running job stays: `rescue` needs its row to find the job.
    """
    is_old = workers.c.lease_until < sa.func.now() - timedelta(days=keep_days)
    still_runs = sa.select(jobs.c.id).where(jobs.c.worker_id == workers.c.id, IS_RUNNING).exists()
    old = sa.select(workers.c.id).where(is_old, ~still_runs).order_by(workers.c.lease_until).limit(FORGET_ROWS)
    return db.execute(delete_chosen(old, workers)).rowcount


def fleets(db: Connection) -> dict[str, Fleet]:
    """The live fleet of each pool; a pool without live workers is absent.

    Workers on a draining host add neither slots nor running jobs. The web processes together ask four times a second.
    """
    return {row.pool: Fleet(**row._mapping) for row in db.execute(_fleets())}


@cache
def _fleets() -> Select[Any]:
    """The statement of `fleets`. To build it takes ten times as long as to run it."""
    live = live_workers().subquery()
    serves = sa.not_(live.c.is_draining)
    # Counted from `jobs`: the numbers in the workers' rows are as old as their last renewal.
    running = sa.select(sa.func.count()).where(jobs.c.worker_id == workers.c.id, IS_RUNNING).scalar_subquery()
    first = sa.select(sa.func.min(jobs.c.started_at)).where(jobs.c.worker_id == workers.c.id, IS_RUNNING)
    ran_s = sa.func.extract("epoch", sa.func.now() - first.scalar_subquery())
    recent = sa.func.now() - timedelta(seconds=RECENT_S)
    of_late = (worker_samples.c.taken_at > recent, worker_samples.c.pool == workers.c.pool)
    kv_use, kv_reserved = (
        sa.select(sa.func.avg(column)).where(*of_late).scalar_subquery()
        for column in (worker_samples.c.kv_use, worker_samples.c.kv_reserved)
    )
    return (
        sa.select(
            workers.c.pool,
            kv_use.label("kv_use"),
            kv_reserved.label("kv_reserved"),
            sa.func.count().label("workers"),
            sa.func.count(live.c.host.distinct()).filter(serves).label("hosts"),
            sa.func.coalesce(sa.func.sum(workers.c.max_running).filter(workers.c.ready, serves), 0).label("slots"),
            sa.cast(sa.func.coalesce(sa.func.sum(running).filter(serves), 0), sa.BigInteger).label("running"),
            sa.cast(sa.func.max(ran_s).filter(serves), sa.Double).label("ran_s"),
            sa.func.min(workers.c.max_model_tokens).label("max_model_tokens"),
            sa.func.min(workers.c.kv_tokens).label("kv_tokens"),
            sa.func.min(workers.c.payload_version).label("payload_version"),
        )
        .join_from(workers, live, live.c.id == workers.c.id)
        .group_by(workers.c.pool)
    )


def gpus(db: Connection) -> dict[str, PoolGpus]:
    """How the GPUs of each pool were used lately; a pool whose workers have none is absent."""
    row = worker_samples.c
    values = {"busy": row.gpu_use, "memory": row.gpu_memory, "watts": row.gpu_watts}
    has_any = sa.or_(*(value.is_not(None) for value in values.values()))
    of_worker = (
        sa.select(row.pool, *(sa.func.avg(value).label(name) for name, value in values.items()))
        .where(row.taken_at > sa.func.now() - timedelta(seconds=RECENT_S), has_any)
        .group_by(row.pool, row.worker_id)
        .subquery()
        .c
    )
    means = (sa.func.avg(of_worker[name]).label(name) for name in ("busy", "memory"))
    found = sa.select(of_worker.pool, *means, sa.func.sum(of_worker.watts).label("watts")).group_by(of_worker.pool)
    return {pool: PoolGpus(*values) for pool, *values in db.execute(found)}
