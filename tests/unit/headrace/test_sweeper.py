"""The timer of the sweeps: what fails or hangs holds up nothing else, and an outage is one line in the log."""

import logging
import threading
import time
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from headrace.errors import LockHeld, StoreUnavailable
from headrace.sweeper import Sweep, SweepCounts, Sweeper

DEADLINE_S = 10.0


class Runs:
    """Counts the runs of a sweep, and lets a test wait for the n-th."""

    def __init__(self, work: Callable[[int], None] = lambda run: None) -> None:
        self._work = work
        self._count = 0
        self._changed = threading.Condition()

    def __call__(self) -> int:
        with self._changed:
            self._count += 1
            self._changed.notify_all()
        self._work(self._count)
        return 0

    def reached(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._count >= count, DEADLINE_S)


def test_a_sweep_that_hangs_holds_up_no_other() -> None:
    released = threading.Event()
    stuck, other = Runs(lambda run: released.wait(DEADLINE_S) and None), Runs()
    sweeper = Sweeper([Sweep("stuck", 0.001, stuck), Sweep("other", 0.001, other)])
    sweeper.start()
    assert stuck.reached(1)
    assert other.reached(5)
    released.set()
    sweeper.stop()


@pytest.mark.parametrize("error", [StoreUnavailable("down"), ZeroDivisionError("a bug")])
def test_a_sweep_that_fails_runs_again(error: Exception) -> None:
    def fail(run: int) -> None:
        raise error

    runs = Runs(fail)
    sweeper = Sweeper([Sweep("failing", 0.001, runs)])
    sweeper.start()
    assert runs.reached(3)
    sweeper.stop()


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    def down_twice_for_a_while(run: int) -> None:
        if run in (2, 3, 4, 6, 7):
            raise StoreUnavailable("down")

    runs = Runs(down_twice_for_a_while)
    with caplog.at_level(logging.INFO, "headrace.sweeper"):
        sweeper = Sweeper([Sweep("expire", 0.001, runs)])
        sweeper.start()
        assert runs.reached(9)
        sweeper.stop()
    assert [record.message for record in caplog.records] == ["sweep_failing", "sweep_recovered"] * 2


def test_nothing_runs_after_stop() -> None:
    runs = Runs()
    sweeper = Sweeper([Sweep("any", 0.001, runs)])
    sweeper.start()
    assert runs.reached(1)
    sweeper.stop()
    count = runs._count
    assert not any(thread.is_alive() for thread in threading.enumerate() if thread.name == "sweep-any")
    assert runs._count == count


def test_a_sweep_that_finds_a_whole_batch_runs_again_at_once_until_it_has_caught_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    left, has_caught_up = [10, 10, 4, 0], threading.Event()

    def run() -> int:
        done = left.pop(0)
        if done < 10:
            has_caught_up.set()
        return done

    caplog.set_level(logging.INFO)
    # The timer comes round after an hour: what runs again does so by itself.
    sweeper = Sweeper([Sweep("batches", 3600, run, batch=10)])
    sweeper.start()
    assert has_caught_up.wait(DEADLINE_S)
    sweeper.stop()
    assert left == [0]
    told = [(each.message, getattr(each, "done", None)) for each in caplog.records]
    assert told == [("sweep_behind", 10), ("sweep_caught_up", 24)]


def test_each_run_is_noted_with_how_it_ended() -> None:
    noted: list[tuple[str, str]] = []

    def fail_once_and_be_skipped_once(run: int) -> None:
        if run == 2:
            raise StoreUnavailable("down")
        if run == 3:
            raise LockHeld("another process")

    runs = Runs(fail_once_and_be_skipped_once)
    sweeper = Sweeper([Sweep("often", 0.001, runs)], lambda sweep, outcome: noted.append((sweep.name, outcome)))
    sweeper.start()
    assert runs.reached(5)
    sweeper.stop()
    assert noted[:4] == [("often", "done"), ("often", "failed"), ("often", "skipped"), ("often", "done")]


EXPIRE, RESCUE = (Sweep(name, 0.5, int) for name in ("expire", "rescue"))


def test_a_sweep_that_fails_or_is_skipped_keeps_the_time_of_its_last_good_run() -> None:
    sweeps, registry = SweepCounts(), CollectorRegistry()
    registry.register(sweeps)
    before = time.time()
    sweeps.note(EXPIRE, "done")
    after = time.time()
    for _ in range(2):
        sweeps.note(EXPIRE, "failed")
    for _ in range(3):
        sweeps.note(EXPIRE, "skipped")
    sweeps.note(RESCUE, "failed")

    done_at = registry.get_sample_value("headrace_sweep_done_timestamp_seconds", {"sweep": "expire"})
    assert done_at is not None
    assert before <= done_at <= after
    assert registry.get_sample_value("headrace_sweep_done_timestamp_seconds", {"sweep": "rescue"}) is None
    counts = {
        (sweep, outcome): registry.get_sample_value("headrace_sweep_runs_total", {"sweep": sweep, "outcome": outcome})
        for sweep in ("expire", "rescue")
        for outcome in ("done", "failed", "skipped")
    }
    assert counts == {
        **{("expire", "done"): 1, ("expire", "failed"): 2, ("expire", "skipped"): 3},
        **{("rescue", "done"): None, ("rescue", "failed"): 1, ("rescue", "skipped"): None},
    }
    assert registry.get_sample_value("headrace_sweep_interval_seconds", {"sweep": "expire"}) == 0.5
