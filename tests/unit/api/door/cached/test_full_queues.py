from types import SimpleNamespace

import pytest

from api.door.cached.full_queues import FRESH_S, KNOCK_EVERY_S, REMEMBER_S, REMEMBERED, FullQueues
from headrace.domain.limits.rates import NO_RATES
from headrace.domain.places import Refusal

FULL, NEWER = (Refusal("depth", depth, 1000, 1000, NO_RATES, cap_jobs=500) for depth in (500, 501))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time; a test moves it by setting `now_s`."""
    clock = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr("api.door.cached.full_queues.time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return clock


def test_one_caller_asks_again_while_the_others_go_on(clock: SimpleNamespace) -> None:
    full: FullQueues[str, Refusal] = FullQueues()
    assert full.recall("q") is None
    assert full.is_empty
    full.remember("q", FULL, clock.now_s)
    assert not full.is_empty

    clock.now_s += FRESH_S * 0.9
    assert full.recall("q") is FULL
    clock.now_s += FRESH_S * 0.2
    assert [full.recall("q") for _ in range(3)] == [None, FULL, FULL]

    full.remember("q", NEWER, clock.now_s)
    assert full.recall("q") is NEWER


def test_nothing_is_remembered_for_longer_than_its_time(clock: SimpleNamespace) -> None:
    full: FullQueues[str, Refusal] = FullQueues()
    asked_at = clock.now_s
    clock.now_s += REMEMBER_S / 4  # The answer took its time.
    full.remember("q", FULL, asked_at)
    clock.now_s = asked_at + REMEMBER_S
    assert [full.recall("q") for _ in range(2)] == [None, None]
    assert full.is_empty


def test_room_voids_what_is_remembered(clock: SimpleNamespace) -> None:
    full: FullQueues[str, Refusal] = FullQueues()
    full.remember("q", FULL, clock.now_s)
    full.forget("q")
    full.forget("never heard of")
    assert full.recall("q") is None


def test_a_knock_is_due_once_in_a_while(clock: SimpleNamespace) -> None:
    full: FullQueues[str, Refusal] = FullQueues()
    assert [full.is_knock_due("app", "q"), full.is_knock_due("app", "q"), full.is_knock_due("app", "r")] == [
        True,
        False,
        True,
    ]
    clock.now_s += KNOCK_EVERY_S
    assert full.is_knock_due("app", "q")


def test_the_memory_is_bounded(clock: SimpleNamespace) -> None:
    full: FullQueues[int, Refusal] = FullQueues()
    for key in range(REMEMBERED + 10):
        full.remember(key, FULL, clock.now_s)
        full.is_knock_due(key)
    assert max(len(full._entries), len(full._knocked_at)) <= REMEMBERED
