import threading

from workers.running.attempts import RunningAttempts


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
