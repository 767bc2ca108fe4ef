"""When a worker's engine has died too often."""

from workers.running.crashes import MOST_CRASHES, WITHIN_S, Crashes


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_third_crash_in_ten_minutes_is_one_too_many() -> None:
    crashes = Crashes(Clock())
    assert [crashes.note() for _ in range(MOST_CRASHES)] == [False, False, True]


def test_crashes_of_long_ago_do_not_count() -> None:
    clock = Clock()
    crashes = Crashes(clock)
    assert not crashes.note()
    clock.now = WITHIN_S + 1
    assert [crashes.note() for _ in range(MOST_CRASHES)] == [False, False, True]


def test_a_crash_that_was_a_jobs_fault_is_not_the_workers() -> None:
    clock = Clock()
    crashes = Crashes(clock)
    assert not crashes.note()
    crashes.explain()
    assert [crashes.note() for _ in range(MOST_CRASHES)] == [False, False, True]
    clock.now = WITHIN_S + 1
    assert [crashes.note() for _ in range(MOST_CRASHES)] == [False, False, True], "the explanation is as old"
