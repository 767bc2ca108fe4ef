"""Refusals at the door: what is repeated for a moment and for whom, whose knocks are sent, and what is counted."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.door.drafts import Draft, Spelling
from api.door.refusals import FRESH_S, KNOCK_EVERY_S, REMEMBER_S, REMEMBERED, RefusalCounts, RefusalMemory
from api.door.submit import Submitter
from headrace.config import PoolSettings, Settings
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.limits.rates import NO_RATES
from headrace.domain.places import Refusal, RefusalCount, bound_of
from headrace.domain.prompts import Message
from headrace.domain.queues import Lane, Overflow
from headrace.errors import QueueFull, StoreUnavailable
from headrace.store import Store

DRAFT = Draft(Spelling("prompt"), (Message("user", "Why is the sky blue?"),), max_tokens=256)
FULL, NEWER = (Refusal("depth", depth, 150_000, 150_000, NO_RATES, cap_jobs=500) for depth in (500, 501))
LIKE_IT: dict[str, Any] = {"prompt": "Another.", "max_tokens": "not even valid"}
APP = new_id()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time; a test moves it by setting `now_s`."""
    clock = SimpleNamespace(now_s=1000.0)
    for module in ("api.door.intake", "api.door.refusals"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return clock


def refuse(submitter: Submitter, app: App, draft: Draft = DRAFT) -> QueueFull:
    with pytest.raises(QueueFull) as raised:
        submitter.submit(draft, app)
    return raised.value


def is_refused(submitter: Submitter, app: App, body: Any = LIKE_IT) -> bool:
    return submitter.refusals.early(app.id, body if isinstance(body, bytes) else json.dumps(body).encode()) is not None


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("reason", ["depth", "share", "app_jobs"])
def test_it_says_what_the_last_examined_job_was_told(submitter: Submitter, door: Any, app: App, reason: Any) -> None:
    door.refusal = Refusal(reason, 500, 150_000, 150_000, NO_RATES, **bound_of(reason, 5))
    examined = refuse(submitter, app)
    assert submitter.refusals.early(app.id, json.dumps(LIKE_IT).encode()) is examined
    assert door.steps.count("reserve") == 1
    assert len(door.refused) == 2
    assert door.refused[0] == door.refused[1], "it is counted as demand like the examined one"


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("reason", ["tokens", "wait", "token_share"])
def test_what_depends_on_a_jobs_size_is_examined(submitter: Submitter, door: Any, app: App, reason: Any) -> None:
    door.refusal = Refusal(reason, 500, 150_000, 150_000, NO_RATES, **bound_of(reason, 5))
    refuse(submitter, app)
    assert not is_refused(submitter, app)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    "body",
    [
        {**LIKE_IT, "lane": "high"},
        {**LIKE_IT, "lane": ["normal"]},
        {**LIKE_IT, "model": "another"},
        {**LIKE_IT, "model": 7},
        {**LIKE_IT, "overflow": "never"},
        {"input": "embed me", "prompt": "Another."},
        {"max_tokens": 1},
        ["prompt"],
        b'{"prompt": "Another."',
        b'{"prompt": "\xff"}',
    ],
    ids=str,
)
def test_what_does_not_look_alike_is_examined(submitter: Submitter, door: Any, app: App, body: Any) -> None:
    door.refusal = FULL
    refuse(submitter, app)
    assert is_refused(submitter, app)
    assert not is_refused(submitter, app, body)


@pytest.mark.usefixtures("clock")
def test_another_app_is_examined(submitter: Submitter, door: Any, app: App) -> None:
    door.refusal = FULL
    refuse(submitter, app)
    assert not is_refused(submitter, replace(app, id=new_id()))


def test_one_request_is_examined_after_a_moment_and_all_are_soon(
    submitter: Submitter, door: Any, app: App, clock: SimpleNamespace
) -> None:
    door.refusal = FULL
    refuse(submitter, app)
    clock.now_s += FRESH_S * 1.1
    assert [is_refused(submitter, app) for _ in range(3)] == [False, True, True]
    clock.now_s += REMEMBER_S
    assert not is_refused(submitter, app)


def test_a_refusal_from_memory_is_not_kept_for_longer_than_what_redis_said(
    submitter: Submitter, door: Any, app: App, clock: SimpleNamespace
) -> None:
    door.refusal = FULL
    refuse(submitter, app)
    clock.now_s += FRESH_S * 0.9
    refuse(submitter, app)
    assert door.steps.count("reserve") == 1
    clock.now_s += REMEMBER_S - FRESH_S * 0.9
    assert not is_refused(submitter, app)


def test_a_job_that_finds_room_ends_it(submitter: Submitter, door: Any, app: App, clock: SimpleNamespace) -> None:
    door.refusal = FULL
    refuse(submitter, app)
    clock.now_s += FRESH_S
    door.refusal = None
    submitter.submit(DRAFT, app)
    assert not is_refused(submitter, app)


@pytest.mark.usefixtures("clock")
def test_a_job_that_may_find_room_elsewhere_is_examined(
    submitter: Submitter, door: Any, app: App, settings: Settings
) -> None:
    """With a key for the paid API: another job may be one that its owner would pay for."""
    keyed = settings.model_copy(update={"openai_api_key": "sk"})
    with_key = replace(submitter, settings=keyed, refusals=replace(submitter.refusals, settings=keyed))
    door.refusal = FULL
    refuse(with_key, app)
    assert not is_refused(submitter, app)
    refuse(with_key, app, replace(DRAFT, overflow=Overflow.NEVER))
    assert is_refused(submitter, app, {**LIKE_IT, "overflow": "never"})


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("change", ["app", "pool", "flight"])
def test_a_job_that_a_cache_may_serve_is_examined(
    submitter: Submitter, door: Any, app: App, settings: Settings, change: str
) -> None:
    caching = {"app": {}, "pool": {"cache_s": 60.0}, "flight": {"single_flight": True}}[change]
    pool = PoolSettings(**{**settings.pools["chat"].model_dump(exclude_unset=True), **caching})
    caches = settings.model_copy(update={"pools": {"chat": pool}})
    door.refusal = FULL
    refuse(
        replace(submitter, refusals=replace(submitter.refusals, settings=caches)),
        replace(app, cache_s=60.0) if change == "app" else app,
    )
    assert not is_refused(submitter, app)


@pytest.mark.usefixtures("clock")
def test_lanes_are_kept_apart(submitter: Submitter, door: Any, app: App) -> None:
    door.refusal = FULL
    refuse(submitter, app, replace(DRAFT, lane=Lane.HIGH))
    assert is_refused(submitter, app, {**LIKE_IT, "lane": "high"})
    assert not is_refused(submitter, app)


def test_one_caller_asks_again_while_the_others_go_on(clock: SimpleNamespace) -> None:
    memory: RefusalMemory[str, Refusal] = RefusalMemory()
    assert memory.recall("q") is None
    assert memory.is_empty
    memory.remember("q", FULL, clock.now_s)
    assert not memory.is_empty

    clock.now_s += FRESH_S * 0.9
    assert memory.recall("q") is FULL
    clock.now_s += FRESH_S * 0.2
    assert [memory.recall("q") for _ in range(3)] == [None, FULL, FULL]

    memory.remember("q", NEWER, clock.now_s)
    assert memory.recall("q") is NEWER


def test_nothing_is_remembered_for_longer_than_its_time(clock: SimpleNamespace) -> None:
    memory: RefusalMemory[str, Refusal] = RefusalMemory()
    asked_at = clock.now_s
    clock.now_s += REMEMBER_S / 4  # The answer took its time.
    memory.remember("q", FULL, asked_at)
    clock.now_s = asked_at + REMEMBER_S
    assert [memory.recall("q") for _ in range(2)] == [None, None]
    assert memory.is_empty


def test_room_voids_what_is_remembered(clock: SimpleNamespace) -> None:
    memory: RefusalMemory[str, Refusal] = RefusalMemory()
    memory.remember("q", FULL, clock.now_s)
    memory.forget("q")
    memory.forget("never heard of")
    assert memory.recall("q") is None


def test_the_memory_is_bounded(clock: SimpleNamespace) -> None:
    memory: RefusalMemory[int, Refusal] = RefusalMemory()
    for key in range(REMEMBERED + 10):
        memory.remember(key, FULL, clock.now_s)
    assert len(memory._entries) <= REMEMBERED


def knock(submitter: Submitter, app: App, queue: str) -> None:
    error = QueueFull("Full.", queue=queue, reason="depth", depth=500, cap=500, retry_after_s=1)
    submitter.refusals.knock(app, error, 300)


def test_a_knock_is_due_once_in_a_while(submitter: Submitter, door: Any, app: App, clock: SimpleNamespace) -> None:
    for queue in ("q", "q", "r"):
        knock(submitter, app, queue)
    assert [queue for _, queue, _ in door.knocks] == ["q", "r"]
    clock.now_s += KNOCK_EVERY_S
    knock(submitter, app, "q")
    assert [queue for _, queue, _ in door.knocks] == ["q", "r", "q"]


@pytest.mark.usefixtures("clock")
def test_the_memory_of_knocks_is_bounded(submitter: Submitter, app: App) -> None:
    for number in range(REMEMBERED + 10):
        knock(submitter, app, f"q{number}")
    assert len(submitter.refusals._knocked_at) <= REMEMBERED


class Written:
    """A Store, and what was added through it."""

    def __init__(self) -> None:
        self.is_down = False
        self.counts: list[dict[Any, Any]] = []

    @contextmanager
    def begin(self) -> Iterator[None]:
        if self.is_down:
            raise StoreUnavailable
        yield


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    written = Written()
    monkeypatch.setattr(
        "headrace.store.fleet.observations.add_refusals", lambda _, counts: written.counts.append(counts)
    )
    return written


def test_counts_are_summed_by_app_queue_and_reason(written: Written) -> None:
    counts = RefusalCounts(cast(Store, written), flush_every_s=3600)
    for tokens in (10, 5):
        counts.add((APP, "chat.high", "queue_full"), RefusalCount(1, tokens, tokens // 5))
    counts.add((APP, "chat.low", "queue_full"), RefusalCount(1, 1, 1))

    counts.flush()
    counts.close()

    assert written.counts == [
        {
            (APP, "chat.high", "queue_full"): RefusalCount(2, 15, 3),
            (APP, "chat.low", "queue_full"): RefusalCount(1, 1, 1),
        }
    ]


def test_nothing_is_forgotten_while_the_store_is_down(written: Written) -> None:
    counts = RefusalCounts(cast(Store, written), flush_every_s=3600)
    counts.add((APP, "chat.high", "queue_full"), RefusalCount(1, 10, 4))
    written.is_down = True
    with pytest.raises(StoreUnavailable):
        counts.flush()
    written.is_down = False
    counts.add((APP, "chat.high", "queue_full"), RefusalCount(1, 1, 1))

    counts.flush()
    counts.close()

    assert written.counts == [{(APP, "chat.high", "queue_full"): RefusalCount(2, 11, 5)}]
