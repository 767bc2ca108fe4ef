import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from api.bodies.fair_semaphore import FairSemaphore
from headrace.domain.ids import new_id

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
