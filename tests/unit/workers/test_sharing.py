"""Asks that share a batch: each gets its own outcome, whatever becomes of the others."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from headrace.errors import StoreBusy, StoreUnavailable
from workers.sharing import MOST_BUSY, Sharing

DEADLINE_S = 10


class Ask(Future[int]):
    """A number to be doubled."""

    def __init__(self, key: str, number: int) -> None:
        super().__init__()
        self.key, self.number = key, number


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

    def serve(self, asks: Sequence[Ask]) -> list[int]:
        asked = {ask.key: ask.number for ask in asks}
        self.batches.append(asked)
        self.entered.set()
        assert self.open.wait(DEADLINE_S)
        if error := self.error(asked):
            raise error
        return [2 * ask.number for ask in asks]


class Crowd:
    """Asks that have come while the first one's batch was under way."""

    def __init__(self, counter: Counter, sharing: Sharing[Ask, int]) -> None:
        self._counter, self._sharing = counter, sharing

    def ask(self, key: str, number: int) -> Ask:
        ask = Ask(key, number)
        self._sharing.ask(ask)
        return ask

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """What is asked in this block comes while an ask named `first` is served; it is released at the end."""
        self._counter.open.clear()
        self._counter.entered.clear()
        self.ask("first", 1)
        assert self._counter.entered.wait(DEADLINE_S)
        yield
        self._counter.open.set()


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def threads(counter: Counter) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made
        counter.open.set()


@pytest.fixture
def sharing(counter: Counter, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> Sharing[Ask, int]:
    monkeypatch.setattr("workers.sharing.MOST", 4)
    return Sharing(threads, counter.serve)


@pytest.fixture
def crowd(counter: Counter, sharing: Sharing[Ask, int]) -> Crowd:
    return Crowd(counter, sharing)


def test_an_ask_alone_is_served_at_once(counter: Counter, crowd: Crowd) -> None:
    assert [crowd.ask(key, number).result(DEADLINE_S) for key, number in (("a", 1), ("b", 2))] == [2, 4]
    assert counter.batches == [{"a": 1}, {"b": 2}]


def test_what_comes_meanwhile_goes_together_and_each_gets_its_own(counter: Counter, crowd: Crowd) -> None:
    with crowd.gathered():
        asks = {number: crowd.ask(str(number), number) for number in (1, 2, -3)}
    assert {number: ask.result(DEADLINE_S) for number, ask in asks.items()} == {1: 2, 2: 4, -3: -6}
    assert counter.batches == [{"first": 1}, {"1": 1, "2": 2, "-3": -3}]


def test_what_is_asked_together_is_served_together(counter: Counter, sharing: Sharing[Ask, int]) -> None:
    asks = [Ask(str(number), number) for number in range(4)]
    sharing.ask(*asks)
    assert [ask.result(DEADLINE_S) for ask in asks] == [0, 2, 4, 6]
    assert [len(batch) for batch in counter.batches] == [4]


def test_a_batch_is_no_larger_than_it_may_be(counter: Counter, crowd: Crowd) -> None:
    with crowd.gathered():
        asks = [crowd.ask(str(number), number) for number in range(10)]
    assert [ask.result(DEADLINE_S) for ask in asks] == [2 * number for number in range(10)]
    assert [len(batch) for batch in counter.batches] == [1, 4, 4, 2]


def test_an_ask_that_makes_a_batch_fail_fails_alone(counter: Counter, crowd: Crowd) -> None:
    counter.error = lambda asked: ValueError("bad") if "bad" in asked else None
    with crowd.gathered():
        good, bad, fine = (crowd.ask(key, 1) for key in ("good", "bad", "fine"))
    assert (good.result(DEADLINE_S), fine.result(DEADLINE_S)) == (2, 2)
    assert str(bad.exception(DEADLINE_S)) == "bad"
    assert counter.batches[2:] == [{"good": 1}, {"bad": 1}, {"fine": 1}]


def test_a_server_that_does_not_answer_is_asked_once_for_all(counter: Counter, crowd: Crowd) -> None:
    with crowd.gathered():
        asks = [crowd.ask(key, 1) for key in "abc"]
        counter.error = lambda asked: StoreUnavailable("down") if len(asked) > 1 else None
    assert [type(ask.exception(DEADLINE_S)) for ask in asks] == [StoreUnavailable] * 3
    assert len(counter.batches) == 2


def test_a_server_that_goes_away_fails_all_that_it_has_not_served(counter: Counter, crowd: Crowd) -> None:
    def error(asked: Mapping[str, int]) -> Exception | None:
        if asked.keys() == {"b"}:
            return StoreUnavailable("down")
        return ValueError("bad") if "b" in asked else None

    with crowd.gathered():
        asks = [crowd.ask(key, 1) for key in "abcd"]
        counter.error = error
    assert [type(ask.exception(DEADLINE_S)) for ask in asks] == [type(None), *[StoreUnavailable] * 3]
    assert [len(batch) for batch in counter.batches] == [1, 4, 1, 1]


def test_a_locked_row_fails_its_own_ask_alone(counter: Counter, crowd: Crowd) -> None:
    counter.error = lambda asked: StoreBusy("locked") if "locked" in asked else None
    with crowd.gathered():
        good, locked, fine = (crowd.ask(key, 1) for key in ("good", "locked", "fine"))
    assert (good.result(DEADLINE_S), fine.result(DEADLINE_S)) == (2, 2)
    assert type(locked.exception(DEADLINE_S)) is StoreBusy


def test_where_every_row_is_locked_not_every_ask_waits_for_its_lock(counter: Counter, crowd: Crowd) -> None:
    with crowd.gathered():
        asks = [crowd.ask(key, 1) for key in "abcd"]
        counter.error = lambda asked: StoreBusy("locked") if "first" not in asked else None
    assert [type(ask.exception(DEADLINE_S)) for ask in asks] == [StoreBusy] * 4
    assert [len(batch) for batch in counter.batches] == [1, 4, *[1] * MOST_BUSY]


def test_after_a_failure_the_next_ask_is_served(counter: Counter, crowd: Crowd) -> None:
    counter.error = lambda asked: ValueError("bad")
    with pytest.raises(ValueError, match="bad"):
        crowd.ask("a", 1).result(DEADLINE_S)
    counter.error = lambda asked: None
    assert crowd.ask("a", 1).result(DEADLINE_S) == 2


def test_those_that_are_alike_are_served_together_and_an_outage_fails_the_others_too(
    counter: Counter, threads: ThreadPoolExecutor
) -> None:
    def by_sign(ask: Ask) -> bool:
        return ask.number < 0

    sharing = Sharing(threads, counter.serve, alike=by_sign)
    asks = [Ask(key, number) for key, number in (("a", 1), ("b", -1), ("c", 2))]
    sharing.ask(*asks)
    assert [ask.result(DEADLINE_S) for ask in asks] == [2, -2, 4]
    assert counter.batches == [{"a": 1, "c": 2}, {"b": -1}]

    counter.error = lambda asked: StoreUnavailable("down")
    asks = [Ask("a", 1), Ask("b", -1)]
    sharing.ask(*asks)
    assert [type(ask.exception(DEADLINE_S)) for ask in asks] == [StoreUnavailable] * 2
    assert counter.batches[2:] == [{"a": 1}]


def test_what_comes_after_a_batch_sees_its_outcomes(counter: Counter, threads: ThreadPoolExecutor) -> None:
    seen, has_come = list[bool](), threading.Event()

    def after() -> None:
        seen.append(ask.done())
        has_come.set()

    sharing = Sharing(threads, counter.serve, after=after)
    ask = Ask("a", 1)
    sharing.ask(ask)
    assert has_come.wait(DEADLINE_S)
    assert seen == [True]


def test_many_threads_each_get_their_own_all_the_time(counter: Counter, crowd: Crowd) -> None:
    def asks(thread: int) -> bool:
        return all(crowd.ask(f"{thread}.{number}", number).result(DEADLINE_S) == 2 * number for number in range(200))

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(asks, range(16)))
    assert sum(map(len, counter.batches)) == 16 * 200
