"""Refusals at the door: what is repeated for a moment and for whom, whose knocks are sent, and what is counted."""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.door.drafts import Sent
from api.door.refusals import (
    FRESH_S,
    HASHED_BYTES,
    KNOCK_EVERY_S,
    LATE_S,
    REMEMBER_S,
    REMEMBERED,
    RefusalCounts,
    RefusalMemory,
    mark_of,
)
from api.door.specify import specify
from api.door.submit import Submitter
from headrace.broker.admission import Admission
from headrace.config import PoolSettings, Settings
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.jobs import Idempotency
from headrace.domain.limits import NO_RATES
from headrace.domain.places import Refusal, RefusalCount, RefusalKey, bound_of
from headrace.domain.queues import Lane, Overflow
from headrace.errors import BrokerUnavailable, QueueFull, StoreUnavailable
from headrace.store import Store
from tests.unit.api.door.test_submit import DRAFT, refused

FULL, NEWER = (Refusal("depth", depth, 150_000, 150_000, NO_RATES, cap_jobs=500) for depth in (500, 501))
LIKE_IT: dict[str, Any] = {"prompt": "Another.", "max_tokens": "not even valid"}
APP = new_id()


def is_refused(submitter: Submitter, app: App, body: Any = LIKE_IT) -> bool:
    return submitter.refusals.early(app.id, body if isinstance(body, bytes) else json.dumps(body).encode()) is not None


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("reason", ["depth", "share", "app_jobs"])
def test_it_says_what_the_last_examined_job_was_told(submitter: Submitter, door: Any, app: App, reason: Any) -> None:
    door.refusal = Refusal(reason, 500, 150_000, 150_000, NO_RATES, **bound_of(reason, 5))
    examined = refused(submitter, app)
    assert submitter.refusals.early(app.id, json.dumps(LIKE_IT).encode()) is examined
    assert door.steps.count("reserve") == 1
    assert len(door.refused) == 2
    assert door.refused[0] == door.refused[1], "it is counted as demand like the examined one"


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("reason", ["tokens", "wait", "token_share"])
def test_what_depends_on_a_jobs_size_is_examined(submitter: Submitter, door: Any, app: App, reason: Any) -> None:
    door.refusal = Refusal(reason, 500, 150_000, 150_000, NO_RATES, **bound_of(reason, 5))
    refused(submitter, app)
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
    refused(submitter, app)
    assert is_refused(submitter, app)
    assert not is_refused(submitter, app, body)


@pytest.mark.usefixtures("clock")
def test_another_app_is_examined(submitter: Submitter, door: Any, app: App) -> None:
    door.refusal = FULL
    refused(submitter, app)
    assert not is_refused(submitter, replace(app, id=new_id()))


def test_one_request_is_examined_after_a_moment_and_all_are_soon(
    submitter: Submitter, door: Any, app: App, clock: SimpleNamespace
) -> None:
    door.refusal = FULL
    refused(submitter, app)
    clock.now_s += FRESH_S * 1.1
    assert [is_refused(submitter, app) for _ in range(3)] == [False, True, True]
    clock.now_s += REMEMBER_S
    assert not is_refused(submitter, app)


def test_a_refusal_from_memory_is_not_kept_for_longer_than_what_redis_said(
    submitter: Submitter, door: Any, app: App, clock: SimpleNamespace
) -> None:
    door.refusal = FULL
    refused(submitter, app)
    clock.now_s += FRESH_S * 0.9
    refused(submitter, app)
    assert door.steps.count("reserve") == 1
    clock.now_s += REMEMBER_S - FRESH_S * 0.9
    assert not is_refused(submitter, app)


def test_a_job_that_finds_room_ends_it(submitter: Submitter, door: Any, app: App, clock: SimpleNamespace) -> None:
    door.refusal = FULL
    refused(submitter, app)
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
    refused(with_key, app)
    assert not is_refused(submitter, app)
    refused(with_key, app, replace(DRAFT, overflow=Overflow.NEVER))
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
    refused(
        replace(submitter, refusals=replace(submitter.refusals, settings=caches)),
        replace(app, cache_s=60.0) if change == "app" else app,
    )
    assert not is_refused(submitter, app)


@pytest.mark.usefixtures("clock")
def test_lanes_are_kept_apart(submitter: Submitter, door: Any, app: App) -> None:
    door.refusal = FULL
    refused(submitter, app, replace(DRAFT, lane=Lane.HIGH))
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


def test_an_app_that_comes_back_in_time_and_finds_no_room_is_told_longer(
    submitter: Submitter, door: Any, app: App, clock: SimpleNamespace
) -> None:
    def told(of: App = app) -> int:
        after_s = refused(submitter, of).retry_after_s
        assert after_s is not None
        return after_s

    door.refusal = FULL
    first = last = told()
    clock.now_s += REMEMBER_S
    assert told() == first, "another of its clients is not told a sooner time, nor a later one"
    for times in (2, 4, 8):
        clock.now_s += last
        last = told()
        assert last == times * first
    assert told(replace(app, id=new_id())) == first

    clock.now_s += last + LATE_S
    assert told() == first, "it did not come back"
    clock.now_s += first
    door.refusal = None
    submitter.submit(DRAFT, app)
    door.refusal = FULL
    assert told() == first, "it found room when it was told to"


@pytest.mark.parametrize("callers", [1, 2, 5])
def test_callers_of_one_app_that_all_come_back_in_time_are_told_longer_and_longer(
    submitter: Submitter, door: Any, app: App, clock: SimpleNamespace, callers: int
) -> None:
    door.refusal, came_s = FULL, clock.now_s
    due, told = [came_s + 1.0 * number for number in range(callers)], []
    for _ in range(6 * callers):
        due.sort()
        clock.now_s = due.pop(0)
        after_s = refused(submitter, app).retry_after_s
        assert after_s is not None
        told.append(after_s)
        due.append(clock.now_s + after_s)

    assert max(told) >= 8 * told[0]


class Servers:
    """A Store and an Admission, and what was added through them. Attributes: known: another process noted these."""

    def __init__(self) -> None:
        self.is_down = self.has_no_redis = False
        self.counts: list[dict[Any, Any]] = []
        self.known: set[bytes] = set()

    @contextmanager
    def begin(self) -> Iterator[None]:
        if self.is_down:
            raise StoreUnavailable
        yield

    def note_refused(self, marks: Collection[bytes]) -> set[bytes]:
        if self.has_no_redis:
            raise BrokerUnavailable
        return set(marks) - self.known


HIGH, LOW = (RefusalKey(APP, f"chat.{lane}", "depth") for lane in ("high", "low"))
AGAIN = RefusalKey(APP, "chat.high", "depth", is_repeat=True)


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    servers = Servers()
    monkeypatch.setattr(
        "headrace.store.fleet.observations.add_refusals", lambda _, counts: servers.counts.append(counts)
    )
    return servers


@pytest.fixture
def counts(servers: Servers) -> Iterator[RefusalCounts]:
    counts = RefusalCounts(cast(Store, servers), cast(Admission, servers), flush_every_s=3600)
    yield counts
    counts.close()


def test_counts_are_summed_by_app_queue_and_reason(counts: RefusalCounts, servers: Servers) -> None:
    for tokens in (10, 5):
        counts.add(HIGH, RefusalCount(1, tokens, tokens // 5))
    counts.add(LOW, RefusalCount(1, 1, 1))
    counts.flush()
    assert servers.counts == [{HIGH: RefusalCount(2, 15, 3), LOW: RefusalCount(1, 1, 1)}]


def test_nothing_is_forgotten_while_the_store_is_down(counts: RefusalCounts, servers: Servers) -> None:
    counts.add(HIGH, RefusalCount(1, 10, 4), b"a")
    servers.is_down = True
    with pytest.raises(StoreUnavailable):
        counts.flush()
    servers.is_down = False
    counts.add(HIGH, RefusalCount(1, 1, 1), b"b")
    counts.flush()
    assert servers.counts == [{HIGH: RefusalCount(2, 11, 5)}]


def test_a_request_counts_once_in_a_minute(counts: RefusalCounts, servers: Servers) -> None:
    clock = SimpleNamespace(now_s=6000.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("api.door.refusals.time", SimpleNamespace(time=lambda: clock.now_s))
        for _ in range(20):
            counts.add(HIGH, RefusalCount(1, 10, 4), b"loop")
        counts.add(HIGH, RefusalCount(1, 10, 4), b"another")
        counts.flush()
        counts.add(HIGH, RefusalCount(1, 10, 4), b"loop")
        counts.flush()
        clock.now_s += 60
        counts.add(HIGH, RefusalCount(1, 10, 4), b"loop")
        counts.flush()
    assert servers.counts == [
        {HIGH: RefusalCount(2, 20, 8), AGAIN: RefusalCount(19, 190, 76)},
        {AGAIN: RefusalCount(1, 10, 4)},
        {HIGH: RefusalCount(1, 10, 4)},
    ]


@pytest.mark.parametrize("has_no_redis", [False, True])
def test_what_another_process_refused_is_a_repeat_too(
    counts: RefusalCounts, servers: Servers, has_no_redis: bool
) -> None:
    servers.known, servers.has_no_redis = {b"loop"}, has_no_redis
    counts.add(HIGH, RefusalCount(1, 10, 4), b"loop")
    counts.flush()
    assert servers.counts == [{HIGH if has_no_redis else AGAIN: RefusalCount(1, 10, 4)}]


def test_only_so_many_requests_are_recognised(
    counts: RefusalCounts, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.door.refusals.RECOGNISED", 3)
    for mark in (b"a", b"b", b"c", b"d", b"d", b"a"):
        counts.add(HIGH, RefusalCount(1, 1, 1), mark)
    counts.flush()
    assert servers.counts == [{HIGH: RefusalCount(5, 5, 5), AGAIN: RefusalCount(1, 1, 1)}]


def test_a_request_is_recognised_by_its_app_and_its_body_to_the_last_byte() -> None:
    body = b"x" * (3 * HASHED_BYTES)
    marks = {mark_of(APP, body), mark_of(APP, body[:-1] + b"y"), mark_of(new_id(), body), mark_of(APP, body[:-1])}
    assert len(marks) == 4
    assert mark_of(APP, bytes(body)) in marks


def test_a_refused_job_has_the_mark_of_its_key_or_else_of_its_body(submitter: Submitter, door: Any, app: App) -> None:
    plain = specify(DRAFT, app, submitter.catalogue, submitter.settings)
    keyed = replace(plain, idempotency=Idempotency("retry-1", b"hash"))
    for spec, body in ((plain, b"{}"), (keyed, b"{}"), (plain, b"")):
        submitter.refusals.count(spec, "depth", body)
    assert door.marks == [mark_of(app.id, b"{}"), mark_of(app.id, b"retry-1"), None]


@pytest.mark.usefixtures("clock")
def test_a_request_that_is_refused_early_has_the_same_mark(submitter: Submitter, door: Any, app: App) -> None:
    door.refusal, body = FULL, json.dumps(LIKE_IT).encode()
    with pytest.raises(QueueFull):
        submitter.submit(DRAFT, app, sent=Sent("req_1", body))
    assert is_refused(submitter, app, body)
    assert door.marks == [mark_of(app.id, body)] * 2
