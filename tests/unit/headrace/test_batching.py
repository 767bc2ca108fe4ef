"""Threads that wait for batches: each gets its own outcome, and none waits for ever."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from headrace.batching import CROWD, CROWD_S, Batching, Gathering
from headrace.errors import StoreBusy, StoreUnavailable

DEADLINE_S = 10.0


class Held:
    """Doubles numbers. The first batch waits until `go` is set; `error` is what each batch raises.

    Attributes:
        error_up_to_ten: the outcome of each number up to ten.
    """

    def __init__(self, error: BaseException | None = None) -> None:
        self.batches: list[list[int]] = []
        self.entered, self.go = threading.Event(), threading.Event()
        self.error = error
        self.error_up_to_ten: BaseException | None = None

    def serve(self, asks: Sequence[int]) -> list[int | BaseException]:
        self.batches.append(list(asks))
        self.entered.set()
        assert self.go.wait(DEADLINE_S)
        if self.error is not None:
            raise self.error
        return [(ask <= 10 and self.error_up_to_ten) or 2 * ask for ask in asks]


def gathered(
    held: Held, batching: Batching[int, int], threads: ThreadPoolExecutor, asks: Sequence[int]
) -> list[Future[int]]:
    """The first is being served while the others come; then all are let go."""
    calls = [threads.submit(batching.call, asks[0])]
    assert held.entered.wait(DEADLINE_S)
    calls += [threads.submit(batching.call, ask) for ask in asks[1:]]
    until(lambda: batching.waiting == len(asks) - 1)
    held.go.set()
    return calls


def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        threading.Event().wait(DEADLINE_S / 1000)
    raise AssertionError("not in time")


def test_what_comes_meanwhile_goes_together_and_then_nobody_leads() -> None:
    held = Held()
    batching = Batching(held.serve, most=3)
    with ThreadPoolExecutor(8) as threads:
        calls = gathered(held, batching, threads, [1, 2, 3, 4, 5])
    assert [call.result() for call in calls] == [2, 4, 6, 8, 10]
    assert [len(batch) for batch in held.batches] == [1, 3, 1]
    assert batching.is_idle


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3)], ids=repr)
def test_an_error_of_some_calls_fails_no_others(error: BaseException) -> None:
    held = Held()
    held.error_up_to_ten = error
    batching = Batching(held.serve, most=8)
    with ThreadPoolExecutor(8) as threads:
        first, *others = gathered(held, batching, threads, [1, 2, 20])
    assert [first.exception(), others[0].exception()] == [error, error]
    assert others[1].result() == 40
    assert batching.is_idle


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3)], ids=repr)
def test_what_a_batch_raises_reaches_each_of_its_calls(error: BaseException) -> None:
    held = Held(error)
    batching = Batching(held.serve, most=8)
    with ThreadPoolExecutor(8) as threads:
        calls = gathered(held, batching, threads, [1, 2, 20])
    assert [call.exception() for call in calls] == [error] * 3
    assert len(held.batches) == 2
    assert batching.is_idle


def test_a_batch_without_an_outcome_for_each_call_fails() -> None:
    batching = Batching[int, int](lambda asks: [], most=8)
    with pytest.raises(AssertionError):
        batching.call(1)
    assert batching.is_idle


@pytest.mark.parametrize(("silence_s", "batches"), [(0.0, 1), (DEADLINE_S, 3)], ids=["silent", "refuses at once"])
def test_who_waits_behind_a_server_that_says_nothing_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, silence_s: float, batches: int
) -> None:
    monkeypatch.setattr("headrace.batching.SILENCE_S", silence_s)
    held = Held(StoreUnavailable("gone"))
    batching = Batching(held.serve, most=2)
    with ThreadPoolExecutor(8) as threads:
        calls = gathered(held, batching, threads, [1, 2, 3, 4, 5])
    assert [type(call.exception()) for call in calls] == [StoreUnavailable] * 5
    assert len(held.batches) == batches
    assert batching.is_idle


@pytest.mark.parametrize(
    ("error", "asks", "batches"),
    [
        (StoreUnavailable("gone"), [1, 20, 30, 40], 2),
        (StoreBusy("locked"), [1, 20, 30, 40], 3),
        (StoreBusy("locked"), [1, 2, 30, 40], 2),
    ],
    ids=["an outage of one", "a locked row", "every row is locked"],
)
def test_an_outcome_says_that_a_server_is_silent_unless_the_others_got_through(
    monkeypatch: pytest.MonkeyPatch, error: StoreUnavailable, asks: Sequence[int], batches: int
) -> None:
    monkeypatch.setattr("headrace.batching.SILENCE_S", 0.0)
    held = Held()
    held.error_up_to_ten = error
    batching = Batching(held.serve, most=2)
    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(batching.call, 50)]
        assert held.entered.wait(DEADLINE_S)
        for number, ask in enumerate(asks, 1):
            calls.append(threads.submit(batching.call, ask))
            until(lambda number=number: batching.waiting == number)  # type: ignore[misc]
        held.go.set()
    assert [call.exception() for call in calls[3:]] == ([None, None] if batches == 3 else [error, error])
    assert len(held.batches) == batches
    assert batching.is_idle


def test_two_of_one_key_are_not_in_one_batch() -> None:
    held = Held()
    batching = Batching(held.serve, most=8)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(batching.call, 1)
        assert held.entered.wait(DEADLINE_S)
        same = [threads.submit(batching.call, ask, "same") for ask in (2, 3)]
        until(lambda: batching.waiting == 2)
        held.go.set()
    assert [call.result() for call in (first, *same)] == [2, 4, 6]
    assert [len(batch) for batch in held.batches] == [1, 1, 1]


@pytest.mark.parametrize(
    ("apart_s", "comers", "later_s", "waits"),
    [
        (0.0, CROWD, 0.0, True),
        (0.0, CROWD - 1, 0.0, False),
        (CROWD_S / CROWD, CROWD, 0.0, True),
        (CROWD_S / (CROWD - 1), CROWD, 0.0, False),
        (0.0, CROWD, CROWD_S, False),
    ],
    ids=["a crowd", "a few", "a crowd that thins", "one after the other", "a crowd that has gone by"],
)
def test_more_are_waited_for_while_many_come(apart_s: float, comers: int, later_s: float, waits: bool) -> None:
    now = 0.0
    pauses: list[float] = []
    gathering = Gathering(0.5, lambda: now, pauses.append)
    for number in range(comers):
        now = number * apart_s
        gathering.came()
    now += later_s
    gathering.wait()
    assert pauses == ([0.5] if waits else [])


def test_a_crowd_s_batch_waits_for_those_who_are_about_to_come() -> None:
    held = Held()
    held.go.set()
    waits, comes = threading.Event(), threading.Event()

    def pause(_for_s: float) -> None:
        waits.set()
        assert comes.wait(DEADLINE_S)

    batching = Batching(held.serve, most=8, gathering=Gathering(0.5, lambda: 0.0, pause))
    for number in range(1, CROWD):
        assert batching.call(number) == 2 * number
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(batching.call, 10)
        assert waits.wait(DEADLINE_S)
        others = [threads.submit(batching.call, number) for number in (11, 12)]
        until(lambda: batching.waiting == 3)
        comes.set()
    assert [call.result() for call in (first, *others)] == [20, 22, 24]
    assert held.batches == [*([number] for number in range(1, CROWD)), [10, 11, 12]]
