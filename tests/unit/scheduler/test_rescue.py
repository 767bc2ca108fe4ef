"""What becomes of an orphaned job, and how long to wait before a lease that ended is believed."""

import pytest

from headrace.domain.states import JobState
from scheduler.rescue import Patience, fate


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("attempt", "is_cancelled", "is_overdue", "target", "code"),
    [
        pytest.param(1, False, False, JobState.WAITING, None, id="first attempt"),
        pytest.param(2, False, False, JobState.WAITING, None, id="one attempt left"),
        pytest.param(3, False, False, JobState.FAILED, "worker_lost", id="last attempt"),
        pytest.param(4, False, False, JobState.FAILED, "worker_lost", id="the limit was lowered meanwhile"),
        pytest.param(1, False, True, JobState.FAILED, "deadline_exceeded", id="past its deadline"),
        pytest.param(3, False, True, JobState.FAILED, "deadline_exceeded", id="past its deadline in the last attempt"),
        pytest.param(3, True, True, JobState.CANCELLED, None, id="a cancel comes first"),
    ],
)
def test_fate_of_an_orphan(
    attempt: int, is_cancelled: bool, is_overdue: bool, target: JobState, code: str | None
) -> None:
    end = fate(attempt=attempt, max_attempts=3, is_cancelled=is_cancelled, is_overdue=is_overdue)
    assert (end.target, end.error_code) == (target, code)


@pytest.mark.parametrize(
    ("attempt", "is_cancelled", "is_overdue", "target", "stands"),
    [
        pytest.param(2, False, False, JobState.WAITING, False, id="one attempt left"),
        pytest.param(3, False, False, JobState.WAITING, True, id="last attempt"),
        pytest.param(3, True, False, JobState.CANCELLED, False, id="a cancel comes first"),
        pytest.param(3, True, True, JobState.CANCELLED, False, id="past its deadline a cancel comes first, too"),
        pytest.param(1, False, True, JobState.WAITING, True, id="past its deadline"),
        pytest.param(3, False, True, JobState.WAITING, True, id="past its deadline in the last attempt"),
    ],
)
def test_an_orphan_that_has_an_answer_does_not_fail(
    attempt: int, is_cancelled: bool, is_overdue: bool, target: JobState, stands: bool
) -> None:
    end = fate(attempt=attempt, max_attempts=3, is_cancelled=is_cancelled, is_overdue=is_overdue, has_answer=True)
    assert (end.target, end.stands) == (target, stands)


def test_patience_lasts_one_full_lease_from_the_first_good_query() -> None:
    clock = Clock()
    patience = Patience(10, clock)
    clock.now_s = 500
    answers = []
    for at_s in (500, 501, 509.9, 510, 511):
        clock.now_s = at_s
        answers.append(patience.good_query())
    assert answers == [False, False, False, True, True]


def test_patience_starts_again_after_an_outage() -> None:
    clock = Clock()
    patience = Patience(10, clock)
    patience.good_query()
    clock.now_s += 10
    assert patience.good_query()
    patience.bad_query()
    clock.now_s += 60
    assert not patience.good_query()
    clock.now_s += 9.9
    assert not patience.good_query()
    clock.now_s += 0.1
    assert patience.good_query()
