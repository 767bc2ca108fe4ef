"""The sweeps' surroundings: real servers, workers that live or died, and a look at what is in the lists."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from redis import Redis

from headrace.broker.admission import Admission
from headrace.broker.messages import ExecuteMessage, list_key, make_celery, named_in
from headrace.broker.rates import Pace
from headrace.config import Settings
from headrace.connections.redis import redis_client
from headrace.domain.attempts import Claim
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id, oldest_id
from headrace.domain.queues import Ticket
from headrace.store import Store, locks
from headrace.store.fleet import workers
from headrace.tables import jobs
from scheduler.deps import ControlDeps
from tests import one_attempt

#: Nothing listens there.
NO_REDIS = "redis://127.0.0.1:1/0"
LEASE_S = 10.0


@pytest.fixture
def deps(settings: Settings, store: Store, admission: Admission, redis: Redis) -> ControlDeps:
    return ControlDeps(settings, store, admission, Pace(redis))


@pytest.fixture
def deps_without_redis(settings: Settings, store: Store) -> ControlDeps:
    """As `deps`, while Redis is down."""
    deaf = settings.model_copy(update={"redis_url": NO_REDIS})
    redis = redis_client(deaf)
    admission = Admission(redis, ExecuteMessage(make_celery("test", deaf)), reservation_ttl_s=30)
    return ControlDeps(deaf, store, admission, Pace(redis))


@pytest.fixture
def row_of(store: Store) -> Callable[[UUID], sa.Row[Any]]:
    """A job's row as it is now."""

    def read(job_id: UUID) -> sa.Row[Any]:
        with store.begin() as db:
            return db.execute(sa.select(jobs).where(jobs.c.id == job_id)).one()

    return read


@pytest.fixture
def made_days_ago(queued: Callable[..., Ticket], age: Callable[[UUID, timedelta], None]) -> Callable[..., Ticket]:
    """Inserts a job that was accepted this number of days ago, as its id says too, and may yet start."""

    def insert(days: int, **changes: Any) -> Ticket:
        by = timedelta(days=days)
        of_that_time = oldest_id(datetime.now(UTC) - by).int | (new_id().int & ((1 << 80) - 1))
        ticket = queued(id=UUID(int=of_that_time), max_wait_s=(by + timedelta(minutes=1)).total_seconds(), **changes)
        age(ticket.job_id, by)
        return ticket

    return insert


@pytest.fixture
def ended(made_days_ago: Callable[..., Ticket], query: Callable[..., Any]) -> Callable[..., Ticket]:
    """Inserts a job that has ended this number of days ago, soon after it was accepted."""

    def insert(days: int, state: str = "succeeded") -> Ticket:
        ticket = made_days_ago(days)
        query("UPDATE jobs SET state = :state, ended_at = created_at WHERE id = :id", state=state, id=ticket.job_id)
        return ticket

    return insert


@pytest.fixture
def in_list(redis: Redis) -> Callable[[str], list[tuple[UUID, int]]]:
    """The jobs, with their `enqueue_no`, whose messages are in a queue's list, next to be taken first."""

    def read(queue: str) -> list[tuple[UUID, int]]:
        named = [named_in(message) for message in reversed(redis.lrange(list_key(queue), 0, -1))]
        assert None not in named
        return [name for name in named if name]

    return read


@pytest.fixture
def running_under(store: Store) -> Callable[..., UUID]:
    """Lets a new worker claim each of the tickets; returns the worker."""

    def claim_all(*tickets: Ticket) -> UUID:
        worker = WorkerInfo(new_id(), "gpu@test", "host-1", "chat", "simulator", "test-model", max_running=32)
        with store.begin() as db:
            workers.register(db, worker, LEASE_S)
            for ticket in tickets:
                assert one_attempt.claim(db, ticket.job_id, ticket.enqueue_no, worker.id, "simulator")
        return worker.id

    return claim_all


@pytest.fixture
def claim(store: Store, running_under: Callable[..., UUID]) -> Callable[[UUID, int], Claim | None]:
    """What a live worker that took this message gets."""

    def take(job_id: UUID, enqueue_no: int) -> Claim | None:
        worker_id = running_under()
        with store.begin() as db:
            return one_attempt.claim(db, job_id, enqueue_no, worker_id, "simulator")

    return take


@pytest.fixture
def holding(store: Store) -> Callable[[str], AbstractContextManager[None]]:
    """Holds a lock for the length of a block, as another control process does that is at work."""

    @contextmanager
    def hold(name: str) -> Iterator[None]:
        with store.begin() as db:
            locks.take(db, name)
        with store.begin() as db:
            locks.take(db, name)
            yield

    return hold


@pytest.fixture
def end_lease(store: Store) -> Callable[[UUID], None]:
    """Ends a worker's lease a second ago, as if it had been killed."""

    def end(worker_id: UUID) -> None:
        past = sa.func.now() - timedelta(seconds=1)
        with store.begin() as db:
            db.execute(sa.update(workers.workers).where(workers.workers.c.id == worker_id).values(lease_until=past))

    return end
