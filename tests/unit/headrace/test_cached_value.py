"""A value that may be a little old: read by one at a time, and never remembered when it could not be read."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from headrace.cached_value import CachedValue
from headrace.errors import StoreUnavailable


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr("headrace.cached_value.time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return clock


def test_a_value_is_read_again_once_it_is_old(clock: SimpleNamespace) -> None:
    values = iter([1, 2])
    cached = CachedValue(lambda: next(values), ttl_s=3)
    assert (cached.get(), cached.get()) == (1, 1)
    clock.now_s += 3.01
    assert cached.get() == 2


def test_its_age_counts_from_the_beginning_of_the_read(clock: SimpleNamespace) -> None:
    def read() -> float:
        began = clock.now_s
        clock.now_s += 2
        return began

    cached = CachedValue(read, ttl_s=3)
    assert cached.get() == 1000
    clock.now_s += 1.5
    assert cached.get() == 1003.5


def test_a_failure_is_not_remembered() -> None:
    outcomes = iter([StoreUnavailable("down"), 1])

    def read() -> object:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    cached = CachedValue(read, ttl_s=3)
    with pytest.raises(StoreUnavailable):
        cached.get()
    assert cached.get() == 1


class SlowRead:
    """A read that takes until it is let go; then it fails, or returns how often it was asked for."""

    def __init__(self, *, fails: bool) -> None:
        self.fails, self.calls = fails, 0
        self.may_end = threading.Event()

    def __call__(self) -> int:
        self.calls += 1
        assert self.may_end.wait(10)
        if self.fails:
            raise StoreUnavailable("down")
        return self.calls


@pytest.mark.parametrize("fails", [False, True])
def test_who_comes_while_it_is_read_shares_the_outcome(fails: bool) -> None:
    # Else each would wait out the server's time-out in turn, and the last of many for minutes.
    read = SlowRead(fails=fails)
    cached = CachedValue(read, ttl_s=3600)
    entered = threading.Barrier(9)

    def get() -> object:
        entered.wait(10)
        try:
            return cached.get()
        except StoreUnavailable:
            return "down"

    with ThreadPoolExecutor(8) as threads:
        outcomes = [threads.submit(get) for _ in range(8)]
        entered.wait(10)
        # All but the one that reads wait for it by now, or come a moment later and find its value.
        while not cached._reading or len(cached._reading._condition._waiters) < 7:  # type: ignore[attr-defined]
            threading.Event().wait(0.001)
        read.may_end.set()
        assert [outcome.result(10) for outcome in outcomes] == (["down"] if fails else [1]) * 8
    assert read.calls == 1


def until(is_so: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < give_up_at
        threading.Event().wait(0.001)


def test_a_value_in_use_is_renewed_before_it_is_old_so_that_no_caller_waits() -> None:
    readers: list[str] = []

    def read() -> int:
        readers.append(threading.current_thread().name)
        return len(readers)

    cached = CachedValue(read, ttl_s=0.02, fresh_s=60)
    cached.get()
    until(lambda: len(readers) > 3)
    assert set(readers[1:]) == {"keeps-fresh"}
    cached.close()
    until(lambda: not cached._is_kept_fresh)


def test_a_value_that_is_used_no_more_is_renewed_no_more(clock: SimpleNamespace) -> None:
    reads: list[float] = []
    cached = CachedValue(lambda: reads.append(clock.now_s), ttl_s=0.02, fresh_s=10)
    cached.get()
    until(lambda: len(reads) > 1)
    clock.now_s += 10.1
    until(lambda: not cached._is_kept_fresh)
    last = len(reads)
    cached.get()
    until(lambda: len(reads) > last + 1)
    cached.close()


def test_a_value_that_cannot_be_renewed_is_read_by_the_next_caller() -> None:
    is_down = threading.Event()
    reads: list[int] = []

    def read() -> int:
        reads.append(1)
        if is_down.is_set():
            raise StoreUnavailable("down")
        return len(reads)

    cached = CachedValue(read, ttl_s=0.02, fresh_s=60)
    cached.get()
    is_down.set()
    # One try and no more: a server that is down is not asked again before a caller needs it.
    until(lambda: not cached._is_kept_fresh)
    is_down.clear()
    tried = len(reads)
    until(lambda: cached.get() > tried)
    until(lambda: len(reads) > tried + 2)
    cached.close()
