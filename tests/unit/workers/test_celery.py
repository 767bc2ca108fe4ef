from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Ignore, Retry

from headrace.broker.transport import LaneCycle, Taker
from headrace.domain.attempts import Outcome
from headrace.domain.states import JobState
from workers.celery import JobFailed, JobRevoked, NotHere, TaskPool, show, shown
from workers.running.recorder import ELSEWHERE


def test_a_failed_job_is_shown_as_a_failure_with_its_error_code_and_nothing_else() -> None:
    with pytest.raises(JobFailed) as raised:
        show(Outcome(JobState.FAILED, "deadline_exceeded"))
    assert repr(raised.value) == "JobFailed('deadline_exceeded')"


def test_a_job_that_waits_for_another_attempt_is_shown_as_a_retry() -> None:
    with pytest.raises(Retry) as raised:
        show(Outcome(JobState.WAITING, "engine_fault"))
    assert repr(raised.value.exc) == "HandedBack('engine_fault')"


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.EXPIRED])
def test_a_cancelled_or_expired_job_is_shown_as_revoked(state: JobState) -> None:
    with pytest.raises(JobRevoked):
        show(Outcome(state))
    assert issubclass(JobRevoked, Ignore)


def test_a_success_raises_nothing_and_a_job_of_another_process_is_left_to_it() -> None:
    show(Outcome(JobState.SUCCEEDED))
    with pytest.raises(NotHere):
        show(Outcome(JobState.RUNNING))


@pytest.mark.parametrize(
    ("outcome", "exception"),
    [
        (Outcome(JobState.RUNNING), NotHere),
        (Outcome(JobState.CANCELLED), JobRevoked),
        (Outcome(JobState.WAITING, "engine_crash"), Retry),
        (Outcome(JobState.FAILED, "engine_fault"), JobFailed),
    ],
)
def test_celery_is_told_what_its_own_tracer_would_have_returned(outcome: Outcome, exception: type[Exception]) -> None:
    info = shown(outcome)
    assert info is not None
    assert isinstance(getattr(info.exception, "exc", info.exception), exception)
    assert shown(Outcome(JobState.SUCCEEDED)) is None


# The pool's threads: when tasks get one, when Celery learns their outcomes, and when the event loop is woken.


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
    applied(pool, None)
    pool.stop()
    assert taker.times - before == times


class Claims:
    """Keeps what is to be started, by delivery tag."""

    def __init__(self) -> None:
        self.waiting: dict[str, Callable[[], object]] = {}

    def when_claimed(self, delivery_tag: str, start: Callable[[], object]) -> None:
        self.waiting[delivery_tag] = start


@dataclass
class Applied:
    """A task that was applied.

    Attributes:
        outcome: what it leaves to be reported, if anything.
        ran: the task's id, once it has run.
        told: what Celery was told.
    """

    outcome: Future[Outcome] | None
    ran: list[str] = field(default_factory=list)
    told: list[Any] = field(default_factory=list)

    def task(self, _name: str, task_id: str, request: Any) -> tuple[int, str, float]:
        self.ran.append(task_id)
        if self.outcome is not None:
            request["outcomes"].append(self.outcome)
        return 0, "None", 0.1


def applied(pool: TaskPool, outcome: Future[Outcome] | None) -> Applied:
    made = Applied(outcome)
    args = ("execute", "job", {"properties": {"delivery_tag": "job.1"}})
    pool.apply_async(made.task, args, callback=made.told.append)
    return made


def test_a_task_gets_a_thread_once_its_job_is_claimed(pool: TaskPool) -> None:
    claims = Claims()
    pool.wait_for_claims(claims.when_claimed)
    task = applied(pool, None)
    assert not pool.executor._threads
    claims.waiting["job.1"]()
    pool.stop()
    assert (task.ran, task.told) == (["job"], [(0, "None", 0.1)])


def test_celery_learns_of_a_success_once_it_is_on_disk(pool: TaskPool, taker: Woken) -> None:
    outcome = Future[Outcome]()
    task = applied(pool, outcome)
    pool.stop()
    assert (task.ran, task.told) == (["job"], [])
    before = taker.times
    outcome.set_result(Outcome(JobState.SUCCEEDED))
    assert task.told == [(0, "None", 0.1)]
    assert taker.times == before + 1, "the slot is free"


@pytest.mark.parametrize(
    ("outcome", "is_shown"),
    [
        (ELSEWHERE, "<ExceptionInfo: ExceptionWithTraceback()>"),
        (Outcome(JobState.FAILED, "engine_fault"), "<ExceptionInfo: JobFailed('engine_fault')>"),
    ],
)
def test_any_other_outcome_is_told_as_the_exception_that_shows_it(
    pool: TaskPool, outcome: Outcome, is_shown: str
) -> None:
    known = Future[Outcome]()
    known.set_result(outcome)
    task = applied(pool, known)
    pool.stop()
    [(is_failure, info, _)] = task.told
    assert (is_failure, repr(info)) == (1, is_shown)


def test_a_task_that_has_failed_itself_is_told_as_failed(pool: TaskPool) -> None:
    told = list[Any]()
    pool.apply_async(lambda *_: (1, "error", 0.1), ("execute", "job", {}), callback=told.append)
    pool.stop()
    assert told == [(1, "error", 0.1)]
