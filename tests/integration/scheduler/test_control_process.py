"""The control processes as they are really started."""

import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from headrace.broker.admission import Admission
from headrace.broker.messages import make_celery
from headrace.config import PROJECT_ROOT, Settings
from headrace.domain.queues import Ticket
from headrace.stack.child import Child, Command

QUEUE = "chat.normal"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
REPLY_TIMEOUT_S = 20.0


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Starts a Celery program of `scheduler.app`; ends it with the test."""
    children: list[Child] = []

    def run(
        *arguments: str, redis_url: str = settings.redis_url, sweep_every_s: str = "0.1", **variables: str
    ) -> Child:
        env = {"DATABASE_URL": settings.database_url, "REDIS_URL": redis_url, "PATH": "/usr/bin:/bin"}
        env |= {"HEADRACE_OBSERVE_EVERY_S": "0.2", "HEADRACE_AUTOSCALE_EVERY_S": "0.2"}
        env |= {"HEADRACE_SWEEP_EVERY_S": sweep_every_s, **variables}
        argv = (sys.executable, "-m", "celery", "-A", "scheduler.app", *arguments, "-l", "INFO")
        child = Child(Command(arguments[0], argv, env, PROJECT_ROOT), tmp_path / f"{arguments[0]}.log")
        children.append(child)
        return child

    yield run
    for child in children:
        child.stop()


def test_jobs_expire_before_the_broker_was_ever_reached_and_the_worker_stops_when_asked(
    start: Callable[..., Child], queued: Callable[..., Ticket], age: Any, row_of: Any
) -> None:
    ticket = queued()
    age(ticket.job_id, timedelta(seconds=31))
    worker = start("worker", redis_url="redis://127.0.0.1:1/0")
    worker.wait_until(lambda: row_of(ticket.job_id).state == "expired", START_TIMEOUT_S)
    worker.wait_until(lambda: "Cannot connect" in worker.last_words(), START_TIMEOUT_S)
    worker.signal(worker.command.stop_signal)
    assert worker.wait(STOP_TIMEOUT_S)
    assert worker.poll() == 0


def test_a_worker_answers_what_flower_asks(start: Callable[..., Child], settings: Settings) -> None:
    worker = start("worker")
    control = make_celery("test", settings).control
    worker.wait_until(control.inspect(timeout=1).ping, START_TIMEOUT_S)
    # It has answered every ping by now: the next reply is to the next question, and is not waited for any longer.
    inspect = control.inspect(timeout=REPLY_TIMEOUT_S, limit=1)
    for question in ("stats", "conf", "registered", "active", "scheduled", "active_queues"):
        assert getattr(inspect, question)(), question


def test_jobs_expire_within_a_second_of_their_time_and_are_never_run(
    start: Callable[..., Child],
    queued: Callable[..., Ticket],
    admission: Admission,
    claim: Any,
    redis: Redis,
    query: Any,
) -> None:
    worker = start("worker", sweep_every_s="1")
    first = queued(max_wait_s=0.1)
    worker.wait_until(lambda: query("SELECT state FROM jobs") == [("expired",)], START_TIMEOUT_S)

    tickets = [queued(max_wait_s=1 + i / 10) for i in range(20)]
    admission.commit(tickets)
    expired = "SELECT count(*) FROM jobs WHERE state = 'expired'"
    worker.wait_until(lambda: query(expired) == [(21,)], START_TIMEOUT_S)

    late_s = query("SELECT extract(epoch FROM ended_at - start_by) FROM jobs WHERE id <> :id", id=first.job_id)
    assert all(0 <= float(each) < 1 for (each,) in late_s)
    assert all(claim(ticket.job_id, 1) is None for ticket in tickets)
    assert query("SELECT count(*) FROM attempts") == [(0,)]
    worker.wait_until(lambda: admission.loads([QUEUE])[QUEUE].jobs == 0, START_TIMEOUT_S)


def test_a_control_worker_erases_old_texts_where_it_is_told_to(
    start: Callable[..., Child], ended: Callable[..., Ticket], query: Any
) -> None:
    ended(2)
    young = ended(1).job_id
    worker = start("worker", HEADRACE_KEEP_TEXTS_DAYS="2")
    worker.wait_until(lambda: query("SELECT job_id FROM job_texts") == [(young,)], START_TIMEOUT_S)


def test_beat_and_a_control_worker_write_samples_and_decisions(
    start: Callable[..., Child], redis: Redis, query: Any
) -> None:
    start("beat")
    worker = start("worker")
    for table in ("queue_samples", "decisions"):
        worker.wait_until(lambda table=table: query(f"SELECT count(*) FROM {table}") > [(8,)], START_TIMEOUT_S)
    worker.signal(worker.command.stop_signal)
    assert worker.wait(STOP_TIMEOUT_S)
    assert worker.poll() == 0
