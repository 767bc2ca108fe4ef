"""Workers and their leases: one row a process, renewed each second on the database's clock."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.jobs import JobState
from headrace.tables import jobs, workers


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker says of itself once its engine is up; see `EngineLimits` for the sizes."""

    id: UUID
    name: str
    host_id: str
    pool: str
    engine: str
    model: str
    max_running: int
    max_model_tokens: int | None = None
    kv_tokens: int | None = None
    kv_block_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class StopRequest:
    """A running attempt of this worker that must stop, and why."""

    job_id: UUID
    attempt: int
    reason: Literal["cancelled", "deadline_exceeded"]

    @property
    def request_id(self) -> str:
        """What the engine calls this attempt."""
        return f"{self.job_id.hex}.{self.attempt}"


def register(db: Connection, info: WorkerInfo, lease_s: float) -> None:
    """Add this process's row, with its first lease, ready."""
    values = {name: getattr(info, name) for name in info.__dataclass_fields__}
    lease_until = sa.func.now() + timedelta(seconds=lease_s)
    db.execute(sa.insert(workers).values(lease_until=lease_until, ready=True, **values))


def renew(db: Connection, worker_id: UUID, lease_s: float, *, running: int, ready: bool) -> list[StopRequest]:
    """Renew the lease; the same round trip returns the running attempts that were cancelled or are overdue."""
    renewed = (
        sa.update(workers)
        .where(workers.c.id == worker_id)
        .values(lease_until=sa.func.now() + timedelta(seconds=lease_s), running=running, ready=ready)
        .returning(workers.c.id)
        .cte("renewed")
    )
    overdue = sa.and_(jobs.c.finish_by.is_not(None), jobs.c.finish_by <= sa.func.now())
    statement = (
        sa.select(jobs.c.id, jobs.c.attempt, jobs.c.cancel_requested_at)
        .where(jobs.c.worker_id == worker_id, jobs.c.state == JobState.RUNNING)
        .where(sa.or_(jobs.c.cancel_requested_at.is_not(None), overdue))
        .add_cte(renewed)
    )
    return [
        StopRequest(row.id, row.attempt, "cancelled" if row.cancel_requested_at else "deadline_exceeded")
        for row in db.execute(statement)
    ]


def retire(db: Connection, worker_id: UUID) -> None:
    """End the lease now: what the worker still held goes back at the next `rescue`."""
    ended = {"lease_until": sa.func.now(), "stopped_at": sa.func.now(), "ready": False, "running": 0}
    db.execute(sa.update(workers).where(workers.c.id == worker_id).values(**ended))


@dataclass(frozen=True, slots=True)
class Fleet:
    """The live workers of one pool, added up.

    Attributes:
        max_model_tokens: the smallest limit among them: what any of them can serve.
        kv_tokens: likewise the smallest pool.
    """

    pool: str
    workers: int
    hosts: int
    slots: int
    running: int
    max_model_tokens: int | None
    kv_tokens: int | None


def fleets(db: Connection) -> dict[str, Fleet]:
    """The live fleet of each pool that has one."""
    statement = (
        sa.select(
            workers.c.pool,
            sa.func.count().label("workers"),
            sa.func.count(workers.c.host_id.distinct()).label("hosts"),
            sa.func.coalesce(sa.func.sum(workers.c.max_running).filter(workers.c.ready), 0).label("slots"),
            sa.func.sum(workers.c.running).label("running"),
            sa.func.min(workers.c.max_model_tokens).label("max_model_tokens"),
            sa.func.min(workers.c.kv_tokens).label("kv_tokens"),
        )
        .where(workers.c.lease_until > sa.func.now())
        .group_by(workers.c.pool)
    )
    return {row.pool: Fleet(**row._mapping) for row in db.execute(statement)}
