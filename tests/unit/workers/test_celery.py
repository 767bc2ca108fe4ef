from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Ignore, Retry

from headrace.broker.transport import LaneCycle, Taker
from headrace.domain.attempts import Outcome
from headrace.domain.states import JobState
from workers.celery import JobFailed, JobRevoked, NotHere, TaskPool, show


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


# The pool's threads.


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
    pool.apply_async(lambda *_: (0, "None", 0.1), ("execute", "job", {}), callback=lambda _: None)
    pool.stop()
    assert taker.times - before == times
