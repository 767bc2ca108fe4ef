"""Threads that share a batch: each gets its own outcome, whatever becomes of the others."""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from headrace.errors import StoreBusy, StoreUnavailable
from workers.sharing import MOST_BUSY, Sharing

DEADLINE_S = 10


class Counter:
    """Doubles numbers; it can be held up, and told what to fail at.

    Attributes:
        batches: what it was asked, batch by batch.
    """

    def __init__(self) -> None:
        self.batches: list[dict[str, int]] = []
        self.open, self.entered = threading.Event(), threading.Event()
        self.open.set()
        self.error: Callable[[Mapping[str, int]], Exception | None] = lambda asked: None

    def serve(self, asked: Mapping[str, int]) -> Mapping[str, int]:
        self.batches.append(dict(asked))
        self.entered.set()
        assert self.open.wait(DEADLINE_S)
        if error := self.error(asked):
            raise error
        return {key: 2 * number for key, number in asked.items() if number >= 0}


class Crowd:
    """Calls that have come while the first one's batch was under way."""

    def __init__(self, counter: Counter, sharing: Sharing[str, int, int], threads: ThreadPoolExecutor) -> None:
        self._counter, self._sharing, self._threads = counter, sharing, threads
        self._calls = list[Future[int | None]]()

    def call(self, key: str, number: int) -> "Future[int | None]":
        future = self._threads.submit(self._sharing.call, key, number)
        self._calls.append(future)
        return future

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """What is called in this block comes while a call named `first` is served; it is released at the end."""
        self._counter.open.clear()
        self._counter.entered.clear()
        self.call("first", 1)
        assert self._counter.entered.wait(DEADLINE_S)
        before = len(self._calls)
        yield
        until(lambda: self._sharing.batching.waiting == len(self._calls) - before)
        self._counter.open.set()


def until(condition: Callable[[], bool]) -> None:
    event = threading.Event()
    for _ in range(1000):
        if condition():
            return
        event.wait(DEADLINE_S / 1000)
    raise AssertionError("not in time")


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def crowd(counter: Counter) -> Iterator[Crowd]:
    with ThreadPoolExecutor(16) as threads:
        yield Crowd(counter, Sharing(counter.serve, most=4), threads)


def test_a_call_alone_is_served_at_once(counter: Counter) -> None:
    sharing = Sharing(counter.serve, most=4)
    assert (sharing.call("a", 1), sharing.call("b", 2)) == (2, 4)
    assert counter.batches == [{"a": 1}, {"b": 2}]


def test_what_there_is_no_outcome_for_is_none(counter: Counter) -> None:
    assert Sharing(counter.serve, most=4).call("a", -1) is None


def test_what_comes_meanwhile_goes_together_and_each_gets_its_own(counter: Counter, crowd: Crowd) -> None:
    with crowd.gathered():
        calls = {number: crowd.call(str(number), number) for number in (1, 2, -3)}
    assert {number: call.result(DEADLINE_S) for number, call in calls.items()} == {1: 2, 2: 4, -3: None}
    assert counter.batches[0] == {"first": 1}
    assert counter.batches[1] == {"1": 1, "2": 2, "-3": -3}


def test_a_batch_is_no_larger_than_it_may_be(counter: Counter, crowd: Crowd) -> None:
    with crowd.gathered():
        calls = [crowd.call(str(number), number) for number in range(10)]
    assert [call.result(DEADLINE_S) for call in calls] == [2 * number for number in range(10)]
    assert [len(batch) for batch in counter.batches] == [1, 4, 4, 2]


def test_two_of_one_key_are_not_in_one_batch(counter: Counter, crowd: Crowd) -> None:
    with crowd.gathered():
        calls = [crowd.call("same", 1), crowd.call("same", 1), crowd.call("other", 3)]
    assert [call.result(DEADLINE_S) for call in calls] == [2, 2, 6]
    assert counter.batches[1:] == [{"same": 1, "other": 3}, {"same": 1}]


def test_a_call_that_makes_a_batch_fail_fails_alone(counter: Counter, crowd: Crowd) -> None:
    counter.error = lambda asked: ValueError("bad") if "bad" in asked else None
    with crowd.gathered():
        good, bad, fine = (crowd.call(key, 1) for key in ("good", "bad", "fine"))
    assert (good.result(DEADLINE_S), fine.result(DEADLINE_S)) == (2, 2)
    assert str(bad.exception(DEADLINE_S)) == "bad"
    assert counter.batches[2:] == [{"good": 1}, {"bad": 1}, {"fine": 1}]


def test_a_server_that_does_not_answer_is_asked_once_for_all(counter: Counter, crowd: Crowd) -> None:
    with crowd.gathered():
        calls = [crowd.call(key, 1) for key in "abc"]
        counter.error = lambda asked: StoreUnavailable("down") if len(asked) > 1 else None
    assert [type(call.exception(DEADLINE_S)) for call in calls] == [StoreUnavailable] * 3
    assert len(counter.batches) == 2


def test_a_locked_row_fails_its_own_call_alone(counter: Counter, crowd: Crowd) -> None:
    counter.error = lambda asked: StoreBusy("locked") if "locked" in asked else None
    with crowd.gathered():
        good, locked, fine = (crowd.call(key, 1) for key in ("good", "locked", "fine"))
    assert (good.result(DEADLINE_S), fine.result(DEADLINE_S)) == (2, 2)
    assert type(locked.exception(DEADLINE_S)) is StoreBusy


def test_where_every_row_is_locked_not_every_call_waits_for_its_lock(counter: Counter, crowd: Crowd) -> None:
    with crowd.gathered():
        calls = [crowd.call(key, 1) for key in "abcd"]
        counter.error = lambda asked: StoreBusy("locked") if "first" not in asked else None
    assert [type(call.exception(DEADLINE_S)) for call in calls] == [StoreBusy] * 4
    assert [len(batch) for batch in counter.batches] == [1, 4, *[1] * MOST_BUSY]


def test_after_a_failure_the_next_call_is_served(counter: Counter) -> None:
    sharing = Sharing(counter.serve, most=4)
    counter.error = lambda asked: ValueError("bad")
    with pytest.raises(ValueError, match="bad"):
        sharing.call("a", 1)
    counter.error = lambda asked: None
    assert sharing.call("a", 1) == 2


def test_many_threads_each_get_their_own_all_the_time(counter: Counter) -> None:
    sharing = Sharing(counter.serve, most=4)

    def calls(thread: int) -> bool:
        return all(sharing.call(f"{thread}.{number}", number) == 2 * number for number in range(200))

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(calls, range(16)))
    assert sum(map(len, counter.batches)) == 16 * 200
