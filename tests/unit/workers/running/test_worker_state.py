import threading

from workers.running.worker_state import MOST_CRASHES, WITHIN_S, Crashes, RunningAttempts


def test_first_reason_to_stop_stands() -> None:
    attempts = RunningAttempts()

    with attempts.running("a"):
        assert attempts.reason("a") is None
        assert attempts.stop("a", "cancelled")
        assert not attempts.stop("a", "draining")
        assert attempts.reason("a") == "cancelled"


def test_attempt_that_runs_here_no_more_is_not_stopped() -> None:
    attempts = RunningAttempts()
    with attempts.running("a"):
        assert attempts.ids() == ["a"]

    assert not attempts.stop("a", "cancelled")
    assert attempts.reason("a") is None
    assert len(attempts) == 0


def test_idle_wait_ends_when_the_last_attempt_ends() -> None:
    attempts = RunningAttempts()
    leave = threading.Event()

    def run() -> None:
        with attempts.running("a"):
            leave.wait(10)

    thread = threading.Thread(target=run)
    thread.start()
    assert not attempts.wait_until_idle(0.01) or not attempts.ids()
    leave.set()
    assert attempts.wait_until_idle(10)
    thread.join()


# When a worker's engine has died too often.


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
