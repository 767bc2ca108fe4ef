"""Many readers at once: they share reads of Postgres, and each gets its own job or its own error."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa

from api.reading import JOBS_IN_READ, Reader
from headrace.broker.admission import Admission
from headrace.domain.ids import new_id
from headrace.domain.jobs import Job
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.errors import NotFound
from headrace.store import Store

READERS = 2 * JOBS_IN_READ + 1
PATIENCE_S = 20

Ask = tuple[UUID, UUID]


@pytest.fixture
def reader(store: Store, admission: Admission) -> Reader:
    return Reader(store, admission)


@pytest.fixture
def together(reader: Reader, engine: sa.Engine) -> Iterator[Callable[[list[Ask]], list[Future[Job]]]]:
    """Reads all of them at once: the first is held by a lock until the others wait behind it."""
    with ThreadPoolExecutor(READERS) as threads:

        def read(asks: list[Ask]) -> list[Future[Job]]:
            with engine.begin() as db:
                db.execute(sa.text("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"))
                reads = [threads.submit(reader.read, *ask) for ask in asks]
                until = time.monotonic() + PATIENCE_S
                while reader.batching.waiting < len(asks) - 1:
                    assert time.monotonic() < until
                    threading.Event().wait(0.001)
                [(waiting,)] = db.execute(sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted"))
                assert waiting <= 1, "they take one connection, however many they are"
            return reads

        yield read


def test_those_who_come_meanwhile_share_reads_and_each_gets_his_own(
    together: Callable[[list[Ask]], list[Future[Job]]], queued: Callable[..., Ticket]
) -> None:
    tickets = [queued() for _ in range(1, READERS)]
    asks = [(ticket.app_id, ticket.job_id) for ticket in tickets]
    # One job has two readers.
    reads = together([*asks, asks[0]])
    assert [read.result(PATIENCE_S).id for read in reads] == [job_id for _, job_id in [*asks, asks[0]]]


def test_another_apps_job_is_not_found_beside_the_same_for_its_owner(
    together: Callable[[list[Ask]], list[Future[Job]]], queued: Callable[..., Ticket]
) -> None:
    mine, stranger = queued(), new_id()
    first, owner, other, unknown = together(
        [(mine.app_id, mine.job_id), (mine.app_id, mine.job_id), (stranger, mine.job_id), (mine.app_id, new_id())]
    )
    assert first.result(PATIENCE_S).id == owner.result(PATIENCE_S).id == mine.job_id
    for read in (other, unknown):
        with pytest.raises(NotFound):
            read.result(PATIENCE_S)


def test_a_row_that_cannot_be_read_fails_its_reader_alone(
    together: Callable[[list[Ask]], list[Future[Job]]], queued: Callable[..., Ticket], store: Store
) -> None:
    tickets = [queued() for _ in range(4)]
    with store.begin() as db:
        # Python's years end with 9999.
        db.execute(sa.text("UPDATE jobs SET start_by = '20000-01-01' WHERE id = :id"), {"id": tickets[2].job_id})
    reads = together([(ticket.app_id, ticket.job_id) for ticket in tickets])
    with pytest.raises(sa.exc.DataError):
        reads.pop(2).result(PATIENCE_S)
    tickets.pop(2)
    assert [read.result(PATIENCE_S).id for read in reads] == [ticket.job_id for ticket in tickets]


def test_a_job_whose_time_is_over_is_ended_by_its_reader(
    reader: Reader, queued: Callable[..., Ticket], age: Callable[[UUID, timedelta], None]
) -> None:
    ticket = queued()
    assert reader.read(ticket.app_id, ticket.job_id).state is JobState.QUEUED
    age(ticket.job_id, timedelta(days=2))
    assert reader.read(ticket.app_id, ticket.job_id).state is JobState.EXPIRED
