"""Events for Flower of jobs that moved without a worker."""

import queue
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from redis import Redis

from headrace.broker.admission import Admission
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id, show_id
from headrace.domain.queues import Ticket
from headrace.store import Store, jobs
from headrace.store.fleet import workers
from headrace.tables import attempts
from headrace.tables import jobs as jobs_table
from scheduler.show_ends import EndsListener
from tests import one_attempt

DEADLINE_S = 20.0


class Dispatcher:
    """Takes events as Celery's dispatcher does. `sent` has them."""

    def __init__(self) -> None:
        self.sent: queue.Queue[tuple[str, str]] = queue.Queue()
        self.hostnames: list[str] = []

    def send(self, kind: str, *, uuid: str, Event: Callable[..., dict[str, Any]], **fields: Any) -> None:
        self.hostnames.append(Event(kind, hostname="control@here", uuid=uuid, **fields)["hostname"])
        self.sent.put((kind, uuid))

    def flush(self) -> None:
        pass


def cancel(store: Store, job_id: UUID) -> None:
    with store.begin() as db:
        jobs.cancel(db, None, job_id)


def announce(admission: Admission, job_id: UUID, sent: "queue.Queue[tuple[str, str]]") -> tuple[str, str]:
    """Announce the job until an event goes out: a message before the listener subscribed is lost."""
    for _ in range(int(DEADLINE_S / 0.1)):
        admission.announce_ended([job_id], moved=[job_id])
        try:
            return sent.get(timeout=0.1)
        except queue.Empty:
            continue
    raise AssertionError("no event")


def ended() -> bool:
    """Waits until no listener's thread is left: one of them uses the store, which the test closes."""
    threads = [each for each in threading.enumerate() if each.name == "show-ends"]
    for each in threads:
        each.join(DEADLINE_S)
    return not any(each.is_alive() for each in threads)


def test_a_job_cancelled_in_its_queue_is_shown_as_revoked_on_each_connection_of_the_worker(
    store: Store, redis: Redis, admission: Admission, queued: Callable[..., Ticket]
) -> None:
    first, second = queued().job_id, queued().job_id
    listener = EndsListener(store, redis)
    for job_id in (first, second):
        cancel(store, job_id)
        dispatcher = Dispatcher()
        listener.start(dispatcher)
        assert announce(admission, job_id, dispatcher.sent) == ("task-revoked", show_id(job_id))
        listener.stop()
        assert ended()
        assert dispatcher.hostnames[0] == "control@here"


def test_a_lost_attempt_is_shown_on_the_worker_that_it_was_lost_with(
    store: Store, redis: Redis, admission: Admission, queued: Callable[..., Ticket]
) -> None:
    job_id, worker_id = queued().job_id, new_id()
    with store.begin() as db:
        workers.register(db, WorkerInfo(worker_id, "gpu@there", "host-1", "chat", "simulator", "m", max_running=8), 60)
        assert one_attempt.claim(db, job_id, 1, worker_id, "simulator") is not None
        db.execute(sa.update(attempts).values(outcome="lost", ended_at=sa.func.now()))
        db.execute(sa.update(jobs_table).values(state="waiting", worker_id=None))
    listener, dispatcher = EndsListener(store, redis), Dispatcher()
    listener.start(dispatcher)
    assert announce(admission, job_id, dispatcher.sent) == ("task-retried", show_id(job_id))
    listener.stop()
    assert ended()
    assert dispatcher.hostnames[0] == "gpu@there"


def test_a_listener_that_was_never_started_can_be_stopped(store: Store, redis: Redis) -> None:
    EndsListener(store, redis).stop()
