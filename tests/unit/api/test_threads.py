"""The threads behind the event loop: lines take turns, and no line occupies them all."""

import asyncio
import threading
from collections.abc import Callable, Hashable, Iterator
from functools import partial

import pytest

from api.threads import Mailbox, Threads
from tests.waiting import until

MOST = 4


@pytest.fixture
def threads() -> Iterator[Threads]:
    loop = asyncio.new_event_loop()
    threads = Threads(MOST, Mailbox(loop))
    yield threads
    threads.close()
    loop.close()


class Works:
    """Works that are under way until they are let go."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self.begun = list[Hashable]()
        self._let_go = threading.Semaphore(0)

    def start(self, line: Hashable) -> None:
        self._threads.start(partial(self._work, line), line)

    def let_go(self, number: int = 1) -> None:
        self._let_go.release(number)

    def _work(self, line: Hashable) -> None:
        self.begun.append(line)
        assert self._let_go.acquire(timeout=10)


@pytest.fixture
def works(threads: Threads) -> Iterator[Works]:
    works = Works(threads)
    yield works
    works.let_go(100)


def begun(works: Works) -> Callable[[str], bool]:
    return lambda lines: works.begun == list(lines)


def test_the_work_of_one_line_leaves_threads_to_others(works: Works) -> None:
    for _ in range(10):
        works.start("a")
    works.start("b")
    until(lambda: sorted(works.begun) == ["a", "a", "b"])
    works.start("c")
    until(lambda: begun(works)("aabc") or begun(works)("abac") or begun(works)("baac"))


def test_lines_take_turns_and_each_goes_on_by_itself(works: Works) -> None:
    for line in "aabb":
        works.start(line)
        until(lambda line=line: works.begun[-1:] == [line])  # type: ignore[misc]
    for line in "aaabc":
        works.start(line)
    works.let_go(100)
    until(lambda: len(works.begun) == 9)
    # All threads were busy.
    turns = works.begun[4:]
    assert sorted(turns) == ["a", "a", "a", "b", "c"]
    assert turns.index("c") <= 2


def test_a_line_alone_is_worked_off(works: Works) -> None:
    for _ in range(20):
        works.start("a")
    works.let_go(20)
    until(lambda: begun(works)("a" * 20))
