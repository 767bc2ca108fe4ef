"""Refusals at the door: when a client is told to come back, whose knocks are sent, and what is counted."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.door.drafts import Sent
from api.door.refusals import (
    HASHED_BYTES,
    KNOCK_EVERY_S,
    LATE_S,
    REMEMBERED,
    RefusalCounts,
    mark_of,
)
from api.door.specify import specify
from api.door.submit import Submitter
from headrace.broker.admission import Admission
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.jobs import Idempotency
from headrace.domain.limits import NO_RATES
from headrace.domain.places import Refusal, RefusalCount, RefusalKey
from headrace.errors import BrokerUnavailable, QueueFull, StoreUnavailable
from headrace.store import Store
from tests.unit.api.door.test_submit import DRAFT, refused

FULL = Refusal("depth", 500, 150_000, 150_000, NO_RATES, cap_jobs=500)
APP = new_id()


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
    clock.now_s += 0.02
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
def test_a_request_that_is_refused_again_has_the_same_mark(submitter: Submitter, door: Any, app: App) -> None:
    door.refusal, body = FULL, b'{"prompt":"Another."}'
    for request_id in ("req_1", "req_2"):
        with pytest.raises(QueueFull):
            submitter.submit(DRAFT, app, sent=Sent(request_id, body))
    assert door.marks == [mark_of(app.id, body)] * 2
