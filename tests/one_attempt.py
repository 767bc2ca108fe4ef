"""One attempt at a time: the store's statements take many, since workers batch them. And a worker to run it."""

from decimal import Decimal
from uuid import UUID

from sqlalchemy import Connection

from headrace.domain.attempts import AttemptEnd, Claim
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.domain.limits import Lack, Limits
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.store import Store
from headrace.store.attempts import claim_all, claim_of, finish_all, reserve_all
from headrace.store.fleet.workers import register


def claim(db: Connection, job_id: UUID, enqueue_no: int, worker_id: UUID, engine: str) -> Claim | None:
    row = claim_all(db, {job_id: enqueue_no}, worker_id, engine).get(job_id)
    return None if row is None else claim_of(row)


def reserve(db: Connection, held: Claim, usd: Decimal, configured: Limits) -> Claim | Lack | None:
    return reserve_all(db, [(held, usd)], configured).get(held.job_id)


def finish(db: Connection, held: Claim, target: JobState, end: AttemptEnd) -> bool:
    return held.job_id in finish_all(db, target, [(held, end)])


def add_worker(
    db: Connection, pool: str = "chat", engine: str = "simulator", *, max_running: int = 4, lease_s: float = 30
) -> UUID:
    """Register a worker on the host `host`; returns its id."""
    info = WorkerInfo(new_id(), "worker@test", "host", pool, engine, "test-model", max_running)
    register(db, info, lease_s)
    return info.id


def claimed(store: Store, ticket: Ticket, pool: str = "chat") -> Claim:
    """Have a new worker claim a queued job."""
    with store.begin() as db:
        found = claim(db, ticket.job_id, ticket.enqueue_no, add_worker(db, pool), "simulator")
    assert found is not None
    return found
