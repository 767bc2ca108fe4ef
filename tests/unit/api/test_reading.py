"""When a wait ends, and what ends a job from outside."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from redis import Redis, RedisError

from api.reading import ClientGone, Waits
from headrace.broker.admission import Admission
from headrace.broker.ending import cancel, read
from headrace.broker.news import listeners_key
from headrace.domain.ids import new_id
from headrace.domain.jobs import Job
from headrace.domain.queues import Lane, Ticket
from headrace.domain.states import JobState
from headrace.errors import BrokerUnavailable, NotFound, SlotsFull, StoreUnavailable
from headrace.store import Store
from tests.waiting import until

APP = new_id()


def _nothing() -> None:
    pass


class FakeJob:
    def __init__(self, state: JobState) -> None:
        self.state = state


class FakeRedis:
    """One channel into which a test puts messages; None for a connection that breaks.

    `listened` are the sets of listeners that were added to, in turn.
    """

    def __init__(self) -> None:
        self.messages: queue.Queue[dict[str, str] | None] = queue.Queue()
        self.subscribed = 0
        self.channel = ""
        self.listened: list[str] = []
        self.takes_listeners = True
        #: How many listeners each round trip added. It is answered once `may_answer` is set.
        self.trips: list[int] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def register_script(self, script: str) -> None:
        """No script runs here."""

    def pipeline(self, *, transaction: bool) -> "FakePipeline":
        return FakePipeline(self)

    @contextmanager
    def pubsub(self) -> Iterator["FakeRedis"]:
        yield self

    def subscribe(self, *channels: str) -> None:
        [channel] = channels
        self.subscribed += 1
        self.messages.put({"type": "subscribe", "channel": channel, "data": "1"})

    def get_message(self, timeout: float) -> dict[str, str] | None:
        try:
            message = self.messages.get(timeout=0.01)
        except queue.Empty:
            return None
        if message is None:
            raise RedisError("gone")
        return message

    def publish(self, what: str, job_id: UUID) -> None:
        self.messages.put({"type": "message", "channel": self.channel, "data": f"{what} {job_id.hex}"})


class FakePipeline:
    def __init__(self, redis: FakeRedis) -> None:
        self._redis, self._keys = redis, list[str]()

    def sadd(self, key: str, channel: str) -> None:
        self._redis.channel = channel
        self._keys.append(key)

    def expire(self, key: str, seconds: int) -> None:
        assert key == self._keys[-1]

    def execute(self) -> None:
        if not self._redis.takes_listeners:
            raise RedisError("gone")
        self._redis.listened += self._keys
        self._redis.trips.append(len(self._keys))
        assert self._redis.may_answer.wait(30)


class FakeStore:
    """`ended` are the jobs that Postgres would call ended; `asked` what it was asked for, query by query."""

    def __init__(self) -> None:
        self.ended: set[UUID] = set()
        self.asked: list[list[UUID]] = []
        self.is_down = False

    @contextmanager
    def begin(self) -> Iterator["FakeStore"]:
        if self.is_down:
            raise StoreUnavailable("gone")
        yield self


def ended_among(db: FakeStore, job_ids: Sequence[UUID]) -> list[UUID]:
    db.asked.append(list(job_ids))
    return [job_id for job_id in job_ids if job_id in db.ended]


@pytest.fixture
def redis() -> FakeRedis:
    return FakeRedis()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    monkeypatch.setattr("headrace.store.jobs.ended_among", ended_among)
    monkeypatch.setattr("api.reading.POLL_S", 0.01)
    return FakeStore()


@pytest.fixture
def waits(redis: FakeRedis, store: FakeStore) -> Iterator[Waits]:
    waits = Waits(cast(Redis, redis), cast(Store, store), wait_slots=2, stream_slots=1)
    yield waits
    waits.close()


class Reads:
    """Reads a job that is in each of the given states in turn, and in the last for ever; None: Postgres is away."""

    def __init__(self, *states: JobState | None) -> None:
        self.states = list(states)
        self.count = 0
        self.has_begun = threading.Event()

    def __call__(self) -> Job:
        state = self.states[min(self.count, len(self.states) - 1)]
        self.count += 1
        self.has_begun.set()
        if state is None:
            raise StoreUnavailable("gone")
        return cast(Job, FakeJob(state))


def followed(waits: Waits, read: Callable[[], Job], wait_s: float, job_id: UUID | None = None) -> Job | ClientGone:
    """How a wait ends. Between its steps it holds on until it is woken, as the server does."""
    woken = threading.Event()
    steps = waits.follow(job_id or new_id(), read, wait_s, woken.set)
    while True:
        woken.clear()
        try:
            step = next(steps)
        except StopIteration as end:
            found: Job | ClientGone = end.value
            return found
        assert step.data == b""
        woken.wait(max(0.0, step.until - time.monotonic()))


def state_of(found: Job | ClientGone) -> JobState:
    assert not isinstance(found, ClientGone)
    return found.state


class Waiter:
    """Waits for a job in a thread of its own."""

    def __init__(self, waits: Waits, reads: Reads, job_id: UUID | None = None) -> None:
        self.job_id = job_id or new_id()
        self.job: Job | ClientGone | None = None
        self._thread = threading.Thread(target=self._wait, args=(waits, reads))
        self._thread.start()
        assert reads.has_begun.wait(30)

    def _wait(self, waits: Waits, reads: Reads) -> None:
        self.job = followed(waits, reads, 60, self.job_id)

    def state(self) -> JobState:
        """Of the job that the wait returned with."""
        self._thread.join(20)
        assert self.job is not None
        return state_of(self.job)


def eventually(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


@pytest.fixture(autouse=True)
def recheck_s(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> float:
    """Seconds between re-checks: few, except where a test must not be helped by them."""
    value = float(getattr(request, "param", 0.01))
    monkeypatch.setattr("api.reading.RECHECK_S", value)
    return value


without_recheck = pytest.mark.parametrize("recheck_s", [3600], indirect=True)


def test_an_ended_job_is_answered_at_once(waits: Waits) -> None:
    reads = Reads(JobState.SUCCEEDED)
    assert state_of(followed(waits, reads, 60)) is JobState.SUCCEEDED
    assert reads.count == 1


@without_recheck
def test_a_wait_ends_when_the_end_is_announced(waits: Waits, redis: FakeRedis) -> None:
    waiter = Waiter(waits, Reads(JobState.RUNNING, JobState.SUCCEEDED))
    redis.publish("ended", waiter.job_id)
    assert waiter.state() is JobState.SUCCEEDED


@without_recheck
def test_an_idle_wait_reads_nothing(waits: Waits, redis: FakeRedis) -> None:
    reads = Reads(JobState.RUNNING, JobState.SUCCEEDED)
    waiter = Waiter(waits, reads)
    redis.publish("ended", new_id())
    redis.publish("more", waiter.job_id)
    eventually(redis.messages.empty)
    assert reads.count == 1
    redis.publish("ended", waiter.job_id)
    assert waiter.state() is JobState.SUCCEEDED
    assert reads.count == 2


def test_a_lost_message_is_healed_by_one_query_for_all(waits: Waits, store: FakeStore) -> None:
    first, second = (Waiter(waits, Reads(JobState.RUNNING, JobState.EXPIRED)) for _ in range(2))
    eventually(lambda: any(set(asked) == {first.job_id, second.job_id} for asked in store.asked))
    store.ended |= {first.job_id, second.job_id}
    assert (first.state(), second.state()) == (JobState.EXPIRED, JobState.EXPIRED)


def test_a_wait_outlasts_an_outage_of_both_servers(waits: Waits, redis: FakeRedis, store: FakeStore) -> None:
    store.is_down = True
    waiter = Waiter(waits, Reads(JobState.RUNNING, JobState.SUCCEEDED))
    redis.messages.put(None)
    eventually(lambda: redis.subscribed == 2)
    store.is_down = False
    store.ended.add(waiter.job_id)
    assert waiter.state() is JobState.SUCCEEDED


def test_nobody_is_asked_about_when_nobody_waits(waits: Waits, store: FakeStore) -> None:
    followed(waits, Reads(JobState.RUNNING), 0.05)
    asked = len(store.asked)
    followed(waits, Reads(JobState.SUCCEEDED), 60)
    assert len(store.asked) <= asked + 1
    assert not any(asked == [] for asked in store.asked)


def test_a_wait_ends_at_its_time_with_the_job_as_it_stands(waits: Waits) -> None:
    reads = Reads(JobState.QUEUED, JobState.RUNNING)
    assert state_of(followed(waits, reads, 0.05)) is JobState.RUNNING
    assert reads.count == 2


def test_the_process_holds_no_more_than_its_slots(waits: Waits) -> None:
    with waits.hold("wait", APP), waits.hold("wait", APP), waits.hold("stream", APP):
        with pytest.raises(SlotsFull) as raised, waits.hold("wait", APP):
            pass
        with pytest.raises(SlotsFull), waits.hold("stream", APP):
            pass
    assert raised.value.retry_after_s == 1
    with waits.hold("wait", APP), waits.hold("wait", APP), waits.hold("stream", APP):
        pass


def test_a_slot_that_was_handed_over_is_given_back_once(waits: Waits) -> None:
    with waits.hold("stream", APP) as slot:
        slot.hand_over()
    with pytest.raises(SlotsFull), waits.hold("stream", APP):
        pass
    slot.release()
    slot.release()
    with waits.hold("stream", APP), pytest.raises(SlotsFull), waits.hold("stream", APP):
        pass


@without_recheck
def test_a_watch_is_told_of_the_stream_and_of_the_end(waits: Waits, redis: FakeRedis) -> None:
    job_id = new_id()
    woken = threading.Event()
    with waits.watch(job_id, woken.set) as watch:
        redis.publish("more", job_id)
        eventually(redis.messages.empty)
        assert woken.wait(30)
        assert not watch.has_ended
        woken.clear()
        redis.publish("ended", job_id)
        assert woken.wait(30)
        eventually(lambda: watch.has_ended)
        assert waits.is_watched(job_id)
    assert not waits.is_watched(job_id)


@without_recheck
def test_whoever_watches_looks_again_after_the_reader_was_away(waits: Waits, redis: FakeRedis) -> None:
    woken = threading.Event()
    with waits.watch(new_id(), woken.set) as watch:
        assert woken.wait(30)
        woken.clear()
        redis.messages.put(None)
        eventually(lambda: redis.subscribed == 2)
        assert woken.wait(30)
        assert not watch.has_ended
        [job_id] = watch.job_ids
        # Once for the watch, and once for each subscription: Redis may have lost its keys.
        eventually(lambda: redis.listened == [listeners_key(job_id)] * 3)


@without_recheck
def test_redis_is_told_again_of_a_long_wait(waits: Waits, redis: FakeRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.reading.RECHECK_S", 0.01)
    monkeypatch.setattr("api.reading.LISTEN_AGAIN_S", 0.01)
    with waits.watch(new_id(), _nothing):
        eventually(lambda: len(redis.listened) >= 5)


def test_redis_is_told_again_of_long_waits_while_postgres_is_away(
    waits: Waits, redis: FakeRedis, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams go on then. The re-check fails each time, and begins anew."""
    monkeypatch.setattr("api.reading.POLL_S", 0.01)
    monkeypatch.setattr("api.reading.RECHECK_S", 0.01)
    monkeypatch.setattr("api.reading.LISTEN_AGAIN_S", 0.1)
    store.is_down = True
    with waits.watch(new_id(), _nothing):
        eventually(lambda: len(redis.listened) >= 5)


def test_waits_that_begin_together_tell_redis_in_one_round_trip(redis: FakeRedis, store: FakeStore) -> None:
    waits = Waits(cast(Redis, redis), cast(Store, store), wait_slots=200, stream_slots=1)
    redis.may_answer.clear()

    def watch() -> None:
        with waits.watch(new_id(), _nothing):
            pass

    crowd = [threading.Thread(target=watch) for _ in range(50)]
    crowd[0].start()
    eventually(lambda: redis.trips)
    for each in crowd[1:]:
        each.start()
    eventually(lambda: waits.listening.waiting == 49)
    redis.may_answer.set()
    for each in crowd:
        each.join(30)
    waits.close()
    assert 49 in redis.trips


def test_a_wait_of_which_redis_is_not_told_ends_by_the_recheck(
    waits: Waits, redis: FakeRedis, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.reading.RECHECK_S", 0.01)
    redis.takes_listeners = False
    waiter = Waiter(waits, Reads(JobState.RUNNING, JobState.SUCCEEDED))
    store.ended.add(waiter.job_id)
    assert waiter.state() is JobState.SUCCEEDED


@without_recheck
def test_every_wait_ends_when_the_process_must_go(waits: Waits) -> None:
    waiters = [Waiter(waits, Reads(JobState.RUNNING)) for _ in range(2)]
    waits.close()
    assert [waiter.state() for waiter in waiters] == [JobState.RUNNING] * 2


def test_a_wait_outlasts_a_postgres_that_is_away_for_a_moment(waits: Waits) -> None:
    reads = Reads(JobState.RUNNING, None, None, JobState.SUCCEEDED)
    waiter = Waiter(waits, reads)
    while reads.count < 4:
        waits._tell(waiter.job_id, has_ended=True)
    assert waiter.state() is JobState.SUCCEEDED


def test_a_wait_whose_time_is_up_says_that_postgres_is_away(waits: Waits) -> None:
    with pytest.raises(StoreUnavailable):
        followed(waits, Reads(JobState.RUNNING, None), 0.3)


@pytest.mark.parametrize("stops", [True, False])
def test_what_breaks_under_the_reader_is_a_failure_unless_the_process_stops(
    waits: Waits, redis: FakeRedis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stops: bool
) -> None:
    reads, breaks = threading.Event(), threading.Event()

    def get_message(timeout: float) -> None:
        reads.set()
        assert breaks.wait(30)
        raise TypeError("The connection was closed.")

    monkeypatch.setattr(redis, "get_message", get_message)
    before = {*threading.enumerate()}  # Those of other tests may still end.
    followed(waits, Reads(JobState.SUCCEEDED), 60)
    assert reads.wait(30)
    [reader] = [each for each in {*threading.enumerate()} - before if each.name == "waits-reader"]
    if stops:
        waits.close()
    breaks.set()
    if stops:
        reader.join(30)
        assert not reader.is_alive()
        assert caplog.messages == []
    else:
        eventually(lambda: "waits_failed" in caplog.messages)


@without_recheck
def test_a_wait_whose_client_leaves_is_over_and_watches_nothing(waits: Waits) -> None:
    job_id = new_id()
    steps = waits.follow(job_id, Reads(JobState.RUNNING), 60, _nothing)
    next(steps)
    assert waits.is_watched(job_id)
    with pytest.raises(StopIteration) as ended:
        steps.throw(ClientGone())
    assert isinstance(ended.value.value, ClientGone)
    assert not waits.is_watched(job_id)


def test_while_redis_is_silent_one_call_at_a_time_waits_for_it(waits: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.reading.SILENCE_S", 0.0)
    monkeypatch.setattr("api.reading.SPARED_S", 0.05)
    asked = list[str]()

    def fails() -> None:
        asked.append("it is silent")
        raise BrokerUnavailable("It is silent.")

    def asks_meanwhile() -> str:
        with pytest.raises(BrokerUnavailable, match="does not answer"):
            waits.ask_redis(fails)
        return "it answers"

    for _ in range(3):
        with pytest.raises(BrokerUnavailable):
            waits.ask_redis(fails)
    assert len(asked) == 1
    answers = list[str]()

    def tries() -> bool:
        with suppress(BrokerUnavailable):
            answers.append(waits.ask_redis(asks_meanwhile))
        return bool(answers)

    until(tries)
    # From then on each call asks again.
    assert waits.ask_redis(lambda: waits.ask_redis(lambda: "both")) == "both"
    assert len(asked) == 1


def test_a_call_that_redis_refuses_at_once_spares_no_other(waits: Waits) -> None:
    asked = list[int]()

    def fails() -> None:
        asked.append(1)
        raise BrokerUnavailable("It is away.")

    for _ in range(3):
        with pytest.raises(BrokerUnavailable, match="It is away"):
            waits.ask_redis(fails)
    assert len(asked) == 3


APP, JOB = new_id(), new_id()
TICKET = Ticket(JOB, APP, "chat.high", Lane.HIGH, 6, 4, datetime(2026, 1, 1, tzinfo=UTC))


class FakeDeps:
    """Store and Admission; `steps` is what was asked of them, in order."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.is_down = False

    @contextmanager
    def begin(self) -> Iterator[None]:
        yield
        self.steps.append("commit")

    autocommit = nullcontext

    def remove(self, tickets: Sequence[str]) -> int:
        self.steps.append(("remove", *tickets))
        if self.is_down:
            raise BrokerUnavailable("gone")
        return len(tickets)

    def announce_ended(self, job_ids: Iterable[UUID], *, moved: Any = ()) -> None:
        self.steps.append(("announce", *job_ids))


@pytest.fixture
def deps() -> FakeDeps:
    return FakeDeps()


@pytest.fixture
def cancel_as(deps: FakeDeps, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Cancels a job that is in the given state once Postgres was told."""

    def act(state: JobState) -> Job:
        def cancelled(_: None, app_id: UUID, job_id: UUID) -> Any:
            assert (app_id, job_id) == (APP, JOB)
            return SimpleNamespace(id=JOB, state=state, ticket=TICKET)

        monkeypatch.setattr("headrace.store.jobs.cancel", cancelled)
        return cancel(cast(Store, deps), cast(Admission, deps), APP, JOB)

    return act


def test_a_cancelled_job_leaves_its_queue_after_the_commit(cancel_as: Any, deps: FakeDeps) -> None:
    assert cancel_as(JobState.CANCELLED).id == JOB
    assert deps.steps == ["commit", ("remove", TICKET), ("announce", JOB)]


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.SUCCEEDED])
def test_a_job_that_was_not_cancelled_is_left_alone(cancel_as: Any, deps: FakeDeps, state: JobState) -> None:
    assert cancel_as(state).state is state
    assert deps.steps == ["commit"]


def test_a_cancel_holds_while_redis_is_down(cancel_as: Any, deps: FakeDeps, caplog: pytest.LogCaptureFixture) -> None:
    deps.is_down = True
    assert cancel_as(JobState.CANCELLED).state is JobState.CANCELLED
    [record] = caplog.records
    assert (record.message, record.jobs) == ("end_not_announced", 1)  # type: ignore[attr-defined]


def test_another_apps_job_reaches_no_queue(deps: FakeDeps, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: Any) -> Any:
        raise NotFound

    monkeypatch.setattr("headrace.store.jobs.cancel", nowhere)
    with pytest.raises(NotFound):
        cancel(cast(Store, deps), cast(Admission, deps), APP, JOB)
    assert deps.steps == []


@pytest.mark.parametrize("is_over", [True, False])
def test_a_reader_ends_a_job_whose_time_is_over_and_frees_its_place(
    deps: FakeDeps, monkeypatch: pytest.MonkeyPatch, is_over: bool
) -> None:
    state = [JobState.QUEUED]

    def expire(_: None, job_ids: list[UUID]) -> list[Ticket]:
        assert job_ids == [JOB]
        state[:] = [JobState.EXPIRED]
        return [TICKET]

    monkeypatch.setattr("headrace.store.jobs.expire", expire)
    monkeypatch.setattr(
        "headrace.store.jobs.find",
        lambda *_: SimpleNamespace(
            id=JOB, app_id=APP, state=state[0], is_over=is_over and state[0] == "queued", is_leader_ended=False
        ),
    )

    job = read(cast(Store, deps), cast(Admission, deps), APP, JOB)

    assert job.state == (JobState.EXPIRED if is_over else JobState.QUEUED)
    assert deps.steps == (["commit", ("remove", TICKET), ("announce", JOB)] if is_over else [])


def test_a_job_that_somebody_else_has_ended_meanwhile_is_his_to_announce(
    deps: FakeDeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.store.jobs.expire", lambda *_: [])
    monkeypatch.setattr(
        "headrace.store.jobs.find", lambda *_: SimpleNamespace(id=JOB, app_id=APP, is_over=True, is_leader_ended=False)
    )
    read(cast(Store, deps), cast(Admission, deps), APP, JOB)
    assert deps.steps == ["commit"]
