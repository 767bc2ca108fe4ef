"""The pool's threads: when tasks get one, when Celery learns their outcomes, and when the event loop is woken."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.broker.transport import LaneCycle, Taker
from workers.celery.events import NotHere
from workers.celery.pool import TaskPool
from workers.running.recording.commits import Commit


class Woken(Taker):
    """Counts how often the loop is woken."""

    def __init__(self) -> None:
        super().__init__("bell")
        self.times = 0
        self.wakes(self._count)

    def _count(self) -> None:
        self.times += 1

    def take(self, turns: LaneCycle, queues: int, most: int) -> list[tuple[str, dict[str, Any]]]:
        return []


@pytest.fixture
def taker() -> Woken:
    return Woken()


@pytest.fixture
def pool(taker: Woken) -> Iterator[TaskPool]:
    app = SimpleNamespace(conf=SimpleNamespace(broker_transport_options={"taker": taker}))
    made = TaskPool(limit=1, app=app)
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize(("is_due", "times"), [(True, 1), (False, 0)])
def test_a_freed_slot_wakes_the_loop_if_a_look_is_due(pool: TaskPool, taker: Woken, is_due: bool, times: int) -> None:
    taker.is_due, before = is_due, taker.times
    pool.apply_async(lambda: None, (), callback=lambda _: None)
    pool.stop()
    assert taker.times - before == times


class Course:
    """Keeps what is to be started, and ends tasks with a commit of the test."""

    def __init__(self, commit: Commit | None) -> None:
        self.waiting: dict[str, Callable[[], object]] = {}
        self.commit = commit

    def when_claimed(self, delivery_tag: str, start: Callable[[], object]) -> None:
        self.waiting[delivery_tag] = start

    def end_of_task(self) -> Commit | None:
        return self.commit


def applied(pool: TaskPool, course: Course) -> tuple[list[str], list[Any]]:
    """Apply a task that succeeds. Returns: what has run, and what Celery was told."""
    ran, told = list[str](), list[Any]()
    pool.follow(course)

    def task(_name: str, task_id: str, _request: Any) -> tuple[int, str, float]:
        ran.append(task_id)
        return 0, "None", 0.1

    pool.apply_async(task, ("execute", "job", {"properties": {"delivery_tag": "job.1"}}), callback=told.append)
    return ran, told


def test_a_task_gets_a_thread_once_its_job_is_claimed(pool: TaskPool) -> None:
    course = Course(None)
    ran, told = applied(pool, course)
    assert not pool.executor._threads
    course.waiting["job.1"]()
    pool.stop()
    assert (ran, told) == (["job"], [(0, "None", 0.1)])


def test_celery_learns_of_a_success_once_it_is_on_disk(pool: TaskPool, taker: Woken) -> None:
    course = Course(Commit())
    ran, told = applied(pool, course)
    course.waiting["job.1"]()
    pool.stop()
    assert (ran, told) == (["job"], [])
    before = taker.times
    assert course.commit is not None
    course.commit.succeed()
    assert told == [(0, "None", 0.1)]
    assert taker.times == before + 1, "the slot is free"


def test_a_success_that_is_lost_is_shown_by_another_process(pool: TaskPool) -> None:
    course = Course(Commit())
    _, told = applied(pool, course)
    course.waiting["job.1"]()
    pool.stop()
    assert course.commit is not None
    course.commit.fail(LookupError("The claim is lost."))
    [(is_failure, info, _)] = told
    assert is_failure
    assert isinstance(info.exception.exc, NotHere)
