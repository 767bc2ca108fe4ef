"""What apps share of a process: an app alone has all slots, several share them, and turns go from app to app."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from api.slots import KNOCK_S, FairSemaphore, Slot, Slots
from headrace.domain.ids import new_id

FIRST, SECOND, THIRD = (new_id() for _ in range(3))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr("api.slots.time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return clock


def taken(slots: Slots, *apps: object) -> list[Slot]:
    """A slot for each of these apps, in turn."""
    got = [slots.take(app) for app in apps]  # type: ignore[arg-type]
    assert None not in got
    return [slot for slot in got if slot]


def test_an_app_alone_may_hold_every_slot() -> None:
    slots = Slots(3)
    taken(slots, FIRST, FIRST, FIRST)
    assert slots.take(FIRST) is None


def test_an_app_alone_holds_no_more_than_its_share_where_there_is_one() -> None:
    slots = Slots(4, 0.5)
    taken(slots, FIRST, FIRST)
    assert slots.take(FIRST) is None
    taken(slots, SECOND, SECOND)


def test_with_a_second_app_neither_gets_more_than_its_share() -> None:
    slots = Slots(6)
    taken(slots, SECOND, FIRST, FIRST, FIRST)
    assert slots.take(FIRST) is None
    taken(slots, SECOND, SECOND)
    assert slots.take(SECOND) is None


def test_a_slot_that_frees_is_kept_for_the_app_that_found_none() -> None:
    slots = Slots(4)
    held = taken(slots, *[FIRST] * 4)
    assert slots.take(SECOND) is None
    held[0].release()

    assert slots.take(FIRST) is None
    taken(slots, SECOND)
    assert slots.take(FIRST) is None, "it has three, and its share is two"


def test_the_last_of_many_apps_finds_a_slot_where_shares_are_rounded_up() -> None:
    slots = Slots(4)
    held = taken(slots, FIRST, FIRST, SECOND, SECOND)
    assert slots.take(THIRD) is None
    held[0].release()

    assert slots.take(FIRST) is None, "its share is two, and the only free slot is kept"
    taken(slots, THIRD)


def test_a_slot_is_kept_for_a_few_seconds_only(clock: SimpleNamespace) -> None:
    slots = Slots(2)
    held = taken(slots, FIRST, FIRST)
    assert slots.take(SECOND) is None
    held[0].release()
    clock.now_s += KNOCK_S
    taken(slots, FIRST)


def test_a_slot_is_given_back_once_however_often_it_is_released() -> None:
    slots = Slots(2)
    first, _ = taken(slots, FIRST, FIRST)
    first.release()
    first.release()
    taken(slots, FIRST)
    assert slots.take(FIRST) is None


def test_no_more_slots_are_held_than_there_are_by_many_threads_at_once(clock: SimpleNamespace) -> None:
    slots, apps, held, most = Slots(5), [new_id() for _ in range(3)], [0], [0]
    lock = threading.Lock()

    def use(i: int) -> None:
        slot = slots.take(apps[i % 3])
        if slot is None:
            return
        with lock:
            held[0] += 1
            most[0] = max(most[0], held[0])
        with lock:
            held[0] -= 1
        slot.release()

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(use, range(2000)))
    assert 1 <= most[0] <= 5
    # A slot is kept for an app that one of the threads asked for in vain.
    clock.now_s += KNOCK_S
    taken(slots, *[apps[0]] * 5)


GREEDY, MODEST = new_id(), new_id()


def until(condition: Callable[[], bool]) -> None:
    ticks = threading.Event()
    for _ in range(2000):
        if condition():
            return
        ticks.wait(0.01)
    raise AssertionError("it never came true")


def test_no_more_callers_than_slots_are_at_it_at_once() -> None:
    semaphore, lock, now, most = FairSemaphore(2), threading.Lock(), 0, 0

    def work(number: int) -> None:
        nonlocal now, most
        with semaphore.hold(GREEDY if number % 2 else MODEST):
            with lock:
                now += 1
                most = max(most, now)
            until(lambda: now == 2 or done.is_set())
            with lock:
                now -= 1

    done = threading.Event()
    with ThreadPoolExecutor(10) as threads:
        works = [threads.submit(work, number) for number in range(20)]
        until(lambda: most == 2)
        done.set()
        for each in works:
            each.result(20)
    assert most == 2


def test_one_app_waits_for_one_turn_of_another_however_many_callers_that_has() -> None:
    semaphore, order, may_go = FairSemaphore(1), list[str](), threading.Event()

    def work(name: str) -> None:
        with semaphore.hold(MODEST if name == "modest" else GREEDY):
            order.append(name)
            assert may_go.wait(20)

    with ThreadPoolExecutor(8) as threads:
        works = [threads.submit(work, "greedy") for _ in range(6)]
        until(lambda: len(semaphore._waiting.get(GREEDY, ())) == 5)
        works.append(threads.submit(work, "modest"))
        until(lambda: MODEST in semaphore._waiting)
        may_go.set()
        for each in works:
            each.result(20)
    assert order.index("modest") == 2
    assert not semaphore._waiting
    with semaphore.hold(GREEDY):
        pass
