"""The pool's threads wake the event loop only while a look waits for a free slot."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.broker.transport import Taker, Turns
from workers.pool import TaskPool


class Woken(Taker):
    """Counts how often the loop is woken."""

    def __init__(self) -> None:
        super().__init__("bell")
        self.times = 0
        self.wakes(self._count)

    def _count(self) -> None:
        self.times += 1

    def take(self, turns: Turns, queues: int, most: int) -> list[tuple[str, dict[str, Any]]]:
        return []


@pytest.fixture
def taker() -> Woken:
    return Woken()


@pytest.fixture
def pool(taker: Woken) -> Iterator[TaskPool]:
    app = SimpleNamespace(conf=SimpleNamespace(broker_transport_options={"taker": taker}))
    made = TaskPool(limit=1, app=app)
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize(("is_due", "times"), [(True, 1), (False, 0)])
def test_a_freed_slot_wakes_the_loop_if_a_look_is_due(pool: TaskPool, taker: Woken, is_due: bool, times: int) -> None:
    taker.is_due, before = is_due, taker.times
    pool.apply_async(lambda: None, (), callback=lambda _: None)
    pool.stop()
    assert taker.times - before == times
