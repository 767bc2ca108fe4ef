"""A stream as bytes: what is written when, when it ends, and that its slot, or its job, goes with it."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from api.deps import WebDeps
from api.door.drafts import Accepted
from api.reading import MOST_PIECES, Watch
from api.slots import Slot
from api.streams.chunks import DONE, ChatChunks
from api.streams.events import BEFORE_ENTRIES, ResponseEvents
from api.streams.sse import KEEP_ALIVE, JobStream, chunk_stream, named, response_stream, unnamed
from api.turns import ClientGone, Wake
from headrace.broker.news import ToldPiece
from headrace.domain.ids import new_id
from headrace.domain.jobs import Job, StreamEvent
from headrace.domain.queues import Lane
from headrace.domain.states import JobState
from headrace.errors import BrokerUnavailable, HeadraceError, InvalidRequest, NotFound, StoreUnavailable
from tests.unit.api.streams.test_events import MADE, TEXT
from tests.unit.api.streams.test_events import QUEUED as IN_BACKGROUND

QUEUED = replace(IN_BACKGROUND, metadata={}, background=False)
DONE_JOB = replace(
    QUEUED,
    state=JobState.SUCCEEDED,
    started_at=MADE,
    ended_at=MADE,
    attempt=1,
    answer=TEXT,
    output_tokens=7,
    finish_reason="stop",
)
ACCEPTED = Accepted(QUEUED.id, JobState.QUEUED, Lane.NORMAL, "chat.normal", QUEUED.start_by, 64, 30.0, 1, 1)


class Places:
    """Counts how often a slot was given back."""

    released = 0

    def give_back(self, _: UUID) -> None:
        self.released += 1


class World:
    """The parts a stream meets: the job as Postgres has it, its entries in Redis, and who else listens."""

    def __init__(self) -> None:
        self.job = QUEUED
        self.entries: list[StreamEvent] = []
        self.watchers: list[Watch] = []
        self.failures: dict[str, HeadraceError] = {}
        self.cancelled: list[UUID] = []
        self.places = Places()
        self.slot = Slot(cast(Any, self.places), new_id())
        self.is_closed = False
        self.is_watched_by_others = self.is_followed = False
        self.held: list[float] = []
        self.reads_of_job = self.reads_of_stream = 0
        settings = SimpleNamespace(keep_alive_s=0.01)
        reader = SimpleNamespace(read=self.read_job)
        store = SimpleNamespace(autocommit=nullcontext)
        fakes = SimpleNamespace(settings=settings, waits=self, streams=self, store=store, admission=None, reader=reader)
        self.deps = cast(WebDeps, fakes)

    @contextmanager
    def watch(self, _: UUID, wake: Wake) -> Iterator[Watch]:
        watch = Watch(wake)
        self.watchers.append(watch)
        try:
            yield watch
        finally:
            self.watchers.remove(watch)

    def watch_leader(self, _: Watch, job: Job) -> None:
        assert job.stream_id == job.id

    def is_watched(self, _: UUID) -> bool:
        return bool(self.watchers) or self.is_watched_by_others

    def hold(self, _: UUID, for_s: float) -> None:
        self.held.append(for_s)

    def is_held(self, _: UUID) -> bool:
        if "is_held" in self.failures:
            raise self.failures["is_held"]
        return bool(self.held)

    def ask_redis(self, read: Any) -> Any:
        return read()

    def read(self, _: UUID, after: int = 0) -> list[StreamEvent]:
        self.reads_of_stream += 1
        if "read" in self.failures:
            raise self.failures["read"]
        return [entry for entry in self.entries if entry.number > after]

    def read_job(self, *_: UUID) -> Job:
        self.reads_of_job += 1
        if "find" in self.failures:
            raise self.failures["find"]
        return self.job

    def say(self, text: str, kind: Any = "delta") -> None:
        self.entries.append(StreamEvent(len(self.entries) + 1, kind, text))
        self._tell(has_ended=False)

    def end(self, job: Job = DONE_JOB) -> None:
        self.job = job
        self._tell(has_ended=True)

    def close(self) -> None:
        self.is_closed = True
        self._tell(has_ended=False)

    def look_again(self) -> None:
        """What a new connection to Redis tells: there may be more."""
        self._tell(has_ended=False)

    def say_at_once(self, text: str, *, told: bool = True, job_id: UUID = QUEUED.id) -> None:
        """Publish a piece that its news bring. Args: told: False if the news are lost."""
        before, entry = len(self.entries), StreamEvent(len(self.entries) + 1, "delta", text)
        self.entries.append(entry)
        for watch in self.watchers if told else ():
            watch.tell(has_ended=False, piece=ToldPiece(job_id, before, entry))

    def _tell(self, *, has_ended: bool) -> None:
        for watch in self.watchers:
            watch.tell(has_ended=has_ended)

    def stream(self, job: Job = QUEUED, *, is_first: bool = True, teller: Any = None) -> JobStream:
        write = unnamed if isinstance(teller, ChatChunks) else named
        return JobStream(self.deps, job, teller or ResponseEvents(job), self.slot, write, is_first=is_first)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr("api.abandoned.cancel", lambda store, admission, app_id, job_id: world.cancelled.append(job_id))
    monkeypatch.setattr("api.abandoned.exact_cache.has_followers", lambda _db, _job_id: world.is_followed)
    return world


def chunks_of(stream: JobStream) -> Iterator[bytes]:
    """The bytes of a stream. Between its steps it holds on until it is woken, as the server does."""
    woken = threading.Event()
    steps = stream.steps(woken.set)
    try:
        while True:
            woken.clear()
            step = next(steps)
            if step.data:
                yield step.data
            woken.wait(max(0.0, step.until - time.monotonic()))
    except StopIteration:
        return
    finally:
        steps.close()


def events(chunk: bytes) -> list[dict[str, Any]]:
    """The events in one piece, the lines that are not data left out."""
    lines = chunk.decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


def kinds(chunk: bytes) -> list[str]:
    return [event["type"] for event in events(chunk)]


def test_an_event_is_written_in_each_ways_own_form() -> None:
    event = {"type": "response.queued", "text": "ü\n\ndata: x"}
    assert named(event) == f"event: response.queued\n{unnamed(event)}"
    assert unnamed(event) == 'data: {"type":"response.queued","text":"ü\\n\\ndata: x"}\n\n'
    assert unnamed(DONE) == "data: [DONE]\n\n"


def test_a_stream_tells_the_beginning_each_piece_and_the_end(world: World) -> None:
    chunks = chunks_of(world.stream())
    assert kinds(next(chunks)) == ["response.created", "response.queued"]
    world.say("Because of ")
    world.say("Rayleigh ")
    assert [event["delta"] for event in events(next(chunks)) if "delta" in event] == ["Because of ", "Rayleigh "]
    world.say("scattering.")
    world.end()
    last = next(chunks)
    assert [event["delta"] for event in events(last) if "delta" in event] == ["scattering."]
    assert kinds(last)[-1] == "response.completed"
    assert list(chunks) == []


def test_the_first_text_does_not_wait_for_postgres(world: World) -> None:
    chunks = chunks_of(world.stream())
    next(chunks)
    world.say("Because of ")
    assert [event["delta"] for event in events(next(chunks)) if "delta" in event] == ["Because of "]
    assert world.reads_of_job == 0
    # Afterwards the job is read once: it may have ended before the watch began.
    world.job = DONE_JOB
    assert kinds(next(chunks))[-1] == "response.completed"
    assert world.reads_of_job == 1


def deltas(chunk: bytes) -> list[str]:
    return [event["delta"] for event in events(chunk) if "delta" in event]


@pytest.fixture
def flowing(world: World) -> Iterator[bytes]:
    """A stream that has had its first text and its look at Postgres, and has nothing more to do."""
    chunks = chunks_of(world.stream())
    next(chunks)
    world.say_at_once("Because ")
    assert deltas(next(chunks)) == ["Because "]
    assert next(chunks) == KEEP_ALIVE
    world.reads_of_stream = 0
    return chunks


def test_pieces_that_the_news_bring_are_not_read(world: World, flowing: Iterator[bytes]) -> None:
    world.say_at_once("of ")
    world.say_at_once("Rayleigh ")
    assert deltas(next(flowing)) == ["of ", "Rayleigh "]
    world.say_at_once("scattering.")
    assert deltas(next(flowing)) == ["scattering."]
    assert world.reads_of_stream == 0
    world.end()
    assert kinds(next(flowing))[-1] == "response.completed"


def test_a_piece_after_a_lost_one_brings_both(world: World, flowing: Iterator[bytes]) -> None:
    world.say_at_once("of ", told=False)
    world.say_at_once("Rayleigh ")
    assert deltas(next(flowing)) == ["of ", "Rayleigh "]
    assert world.reads_of_stream == 1
    world.say_at_once("scattering.")
    assert deltas(next(flowing)) == ["scattering."]
    assert world.reads_of_stream == 1


def test_a_piece_that_was_read_already_is_not_told_twice(world: World, flowing: Iterator[bytes]) -> None:
    world.say_at_once("of ", told=False)
    world.look_again()
    assert deltas(next(flowing)) == ["of "]
    for watch in world.watchers:
        watch.tell(has_ended=False, piece=ToldPiece(QUEUED.id, 1, world.entries[1]))
    world.say_at_once("Rayleigh ")
    assert deltas(next(flowing)) == ["Rayleigh "]


def test_a_piece_that_follows_less_than_was_told_is_not_told(world: World, flowing: Iterator[bytes]) -> None:
    """A promoted replica lacked the last pieces, and the next claim continues what it has: `Streams.read` decides."""
    world.say_at_once("of ")
    assert deltas(next(flowing)) == ["of "]
    for watch in world.watchers:
        watch.tell(has_ended=False, piece=ToldPiece(QUEUED.id, 1, StreamEvent(1_000_002, "delta", "another's")))
    assert next(flowing) == KEEP_ALIVE
    assert world.reads_of_stream >= 1


def test_more_pieces_than_are_kept_are_read(world: World, flowing: Iterator[bytes]) -> None:
    words = [f"{number} " for number in range(MOST_PIECES + 5)]
    for word in words:
        world.say_at_once(word)
    assert deltas(next(flowing)) == words


def test_pieces_of_another_job_are_not_told(world: World, flowing: Iterator[bytes]) -> None:
    for watch in world.watchers:
        watch.tell(has_ended=False, piece=ToldPiece(new_id(), 1, StreamEvent(2, "delta", "another's")))
    world.say_at_once("of ")
    assert deltas(next(flowing)) == ["of "]


def test_a_chat_completion_has_no_chunk_before_its_first_text(world: World) -> None:
    chunks = chunks_of(world.stream(teller=ChatChunks(QUEUED)))
    assert next(chunks) == KEEP_ALIVE, "the head of the answer is on its way"
    world.say("Because of ")
    assert [event["choices"][0]["delta"] for event in events(next(chunks))] == [
        {"role": "assistant", "content": ""},
        {"content": "Because of "},
    ]
    world.say("Rayleigh scattering.")
    world.end()
    assert all("role" not in event["choices"][0]["delta"] for event in events(b"".join(chunks)))


def test_an_empty_chat_completion_has_its_role_at_the_end(world: World) -> None:
    chunks = chunks_of(world.stream(teller=ChatChunks(QUEUED)))
    next(chunks)
    world.end(replace(DONE_JOB, answer=""))
    [role, last] = events(b"".join(chunks))
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert last["choices"][0]["finish_reason"] == "stop"


def test_a_failure_before_the_first_text_is_an_error_alone(world: World) -> None:
    chunks = chunks_of(world.stream(teller=ChatChunks(QUEUED)))
    next(chunks)
    world.end(
        replace(DONE_JOB, state=JobState.FAILED, answer=None, error_code="engine_crash", error_message="It died.")
    )
    [told] = events(b"".join(chunks))
    assert told["error"]["code"] == "engine_crash"


def test_silence_is_filled_with_comments(world: World) -> None:
    chunks = chunks_of(world.stream())
    next(chunks)
    assert [next(chunks), next(chunks)] == [KEEP_ALIVE, KEEP_ALIVE]
    assert world.reads_of_job == 0, "an idle stream costs Postgres nothing"


def test_a_job_that_had_ended_is_told_at_once(world: World) -> None:
    told = b"".join(chunks_of(world.stream(DONE_JOB)))
    assert kinds(told)[0] == "response.created"
    assert kinds(told)[-1] == "response.completed"
    assert world.reads_of_job == 0


def test_an_end_between_the_read_and_the_watch_is_not_missed(world: World) -> None:
    # The stream has begun, so that the job may be over already, and no news of that will follow.
    world.say("Because of Rayleigh scattering.")
    world.job = DONE_JOB
    told = b"".join(chunks_of(world.stream()))
    assert kinds(told)[-1] == "response.completed"


def test_a_stream_ends_with_an_error_when_the_process_must_go(world: World) -> None:
    chunks = chunks_of(world.stream())
    next(chunks)
    world.close()
    [interrupted] = events(b"".join(chunks))
    assert (interrupted["type"], interrupted["code"]) == ("error", "stream_interrupted")


def test_what_redis_does_not_tell_comes_from_the_answer(world: World) -> None:
    chunks = chunks_of(world.stream())
    next(chunks)
    world.failures["read"] = BrokerUnavailable("gone")
    world.end()
    assert [event["delta"] for event in events(b"".join(chunks)) if "delta" in event] == [TEXT]


def test_an_end_that_postgres_cannot_show_yet_is_looked_for_again(world: World) -> None:
    chunks = chunks_of(world.stream())
    next(chunks)
    world.failures["find"] = StoreUnavailable("gone")
    world.end()
    assert next(chunks) == KEEP_ALIVE
    world.failures.clear()
    world.end()
    assert kinds(b"".join(chunks))[-1] == "response.completed"


@pytest.mark.parametrize("make", [ResponseEvents, ChatChunks])
def test_a_stream_whose_job_was_deleted_ends_with_an_error(world: World, make: Callable[[Job], Any]) -> None:
    stream = world.stream(teller=make(QUEUED))
    chunks = chunks_of(stream)
    next(chunks)
    world.failures["find"] = NotFound()
    world.end()
    [gone] = chunks
    assert b'"not_found"' in gone
    assert b"DONE" not in gone
    stream.close()
    assert world.cancelled == []


def test_a_reader_may_leave_while_it_learns_that_its_job_was_deleted(world: World) -> None:
    steps = world.stream().steps(lambda: None)
    next(steps)
    world.failures["find"] = NotFound()
    world.end()
    assert b"not_found" in next(steps).data
    with pytest.raises(StopIteration):
        steps.throw(ClientGone())


def test_chat_ends_with_done_and_a_restart_ends_it_before(world: World) -> None:
    chunks = chunks_of(world.stream(teller=ChatChunks(QUEUED)))
    next(chunks)
    world.end()
    assert next(chunks).endswith(b"data: [DONE]\n\n")
    assert list(chunks) == []

    world.entries.clear()
    chunks = chunks_of(world.stream(teller=ChatChunks(QUEUED)))
    next(chunks)
    world.say("Because")
    world.say("", "restart")
    [role, piece, error] = events(b"".join(chunks))
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert (piece["choices"][0]["delta"], error["error"]["code"]) == ({"content": "Because"}, "stream_restarted")


BACKGROUND = replace(QUEUED, background=True)


@pytest.mark.parametrize(
    ("job", "is_first", "is_watched", "is_closed", "is_cancelled"),
    [
        (QUEUED, True, False, False, True),
        (BACKGROUND, True, False, False, False),
        (QUEUED, False, False, False, False),
        (QUEUED, True, True, False, False),
        (QUEUED, True, False, True, False),
    ],
    ids=["its only reader left", "in the background", "a later reader", "another listens", "the process must go"],
)
def test_a_job_goes_with_its_only_reader(
    world: World, job: Job, is_first: bool, is_watched: bool, is_closed: bool, is_cancelled: bool
) -> None:
    stream = world.stream(job, is_first=is_first)
    chunks = cast(Any, chunks_of(stream))
    next(chunks)
    world.is_watched_by_others, world.is_closed = is_watched, is_closed
    # As the server does when a write fails.
    chunks.close()
    stream.close()
    assert world.cancelled == ([job.id] if is_cancelled else [])
    assert world.places.released == 1


def test_a_job_that_others_follow_stays(world: World) -> None:
    world.is_followed = True
    world.stream().close()
    assert world.cancelled == []


@pytest.mark.parametrize("is_redis_down", [False, True])
def test_a_job_that_is_listened_to_at_another_process_stays(world: World, is_redis_down: bool) -> None:
    if is_redis_down:
        world.failures["is_held"] = BrokerUnavailable("gone")
    else:
        again = chunks_of(world.stream(is_first=False))
        next(again)
        assert world.held == [pytest.approx(0.03)]
        assert next(again) == KEEP_ALIVE
        assert len(world.held) == 2, "for as long as it listens"
        cast(Any, again).close()
    world.stream().close()
    assert world.cancelled == []


def test_the_first_reader_holds_nothing(world: World) -> None:
    for job, is_first in ((QUEUED, True), (BACKGROUND, False)):
        chunks = chunks_of(world.stream(job, is_first=is_first))
        next(chunks)
        next(chunks)
    assert world.held == []


def test_a_job_whose_reader_heard_the_end_is_not_cancelled(world: World) -> None:
    stream = world.stream(DONE_JOB)
    list(chunks_of(stream))
    stream.close()
    assert world.cancelled == []


@pytest.mark.parametrize("failure", [StoreUnavailable("gone"), NotFound(), RuntimeError("a bug")], ids=repr)
def test_the_slot_comes_back_whatever_becomes_of_the_cancel(
    world: World, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise failure

    monkeypatch.setattr("api.abandoned.cancel", fail)
    stream = world.stream()
    if isinstance(failure, RuntimeError):
        with pytest.raises(RuntimeError):
            stream.close()
    else:
        stream.close()
    assert world.places.released == 1


def whole(stream: JobStream) -> bytes:
    """The whole of a stream."""
    return b"".join(step.data for step in stream.steps(lambda: None))


def told_to(world: World, job: Job, **more: Any) -> list[dict[str, Any]]:
    """The events of a whole stream."""
    return events(whole(response_stream(world.deps, job, world.slot, **more)))


def test_a_response_that_nobody_reads_gives_its_slot_back_and_cancels_its_job(world: World) -> None:
    response_stream(world.deps, QUEUED, world.slot, accepted=ACCEPTED).close()
    assert world.places.released == 1
    assert world.cancelled == [QUEUED.id]


@pytest.mark.parametrize("make", [response_stream, partial(chunk_stream, chunks=ChatChunks(QUEUED))])
def test_a_job_that_was_not_made_as_a_stream_has_none(world: World, make: Any) -> None:
    with pytest.raises(InvalidRequest) as raised:
        make(world.deps, replace(QUEUED, stream=False), world.slot, accepted=ACCEPTED)
    assert (raised.value.code, raised.value.param) == ("stream_not_available", "stream")
    assert f"GET /v1/responses/resp_{QUEUED.id.hex}" in str(raised.value)
    assert not world.slot.is_handed_over


@pytest.mark.parametrize("after", [BEFORE_ENTRIES, BEFORE_ENTRIES + 1, BEFORE_ENTRIES + 40])
def test_a_place_in_a_stream_that_is_gone_cannot_be_resumed(world: World, after: int) -> None:
    if after == BEFORE_ENTRIES:
        assert told_to(world, DONE_JOB, starting_after=after)
    else:
        with pytest.raises(InvalidRequest) as raised:
            response_stream(world.deps, DONE_JOB, world.slot, starting_after=after)
        assert raised.value.code == "stream_not_available"
        assert not world.slot.is_handed_over


def test_a_stream_whose_beginning_redis_lost_is_resumed_only_where_it_goes_on(world: World) -> None:
    world.entries = [StreamEvent(1_000_001, "restart", ""), StreamEvent(1_000_007, "delta", "Because of ")]
    with pytest.raises(InvalidRequest) as raised:
        response_stream(world.deps, DONE_JOB, world.slot, starting_after=9)
    assert raised.value.code == "stream_not_available"
    rest = told_to(world, DONE_JOB, starting_after=1_000_005)
    assert rest[0]["sequence_number"] == 1_000_011


def test_a_stream_that_has_less_than_was_told_is_told_anew_at_its_end(world: World) -> None:
    for piece in ("Because of ", "Rayleigh ", "scattering."):
        world.say(piece)
    told = told_to(world, DONE_JOB)
    del world.entries[1:]
    for had in told[7:]:
        rest = told_to(world, DONE_JOB, starting_after=had["sequence_number"])
        assert rest[0]["code"] == "stream_restarted"
        assert [event["delta"] for event in rest if "delta" in event] == [TEXT]
        assert rest[-1]["type"] == "response.completed"
        assert all(event["sequence_number"] > had["sequence_number"] for event in rest)


def test_a_reader_whose_place_is_unknown_is_told_to_come_back_where_it_was(world: World) -> None:
    world.entries = [StreamEvent(1, "delta", "Because of "), StreamEvent(1_000_001, "begin", "")]
    world.entries.append(StreamEvent(1_000_002, "delta", "Mie "))
    world.is_closed = True
    [last] = told_to(world, QUEUED, starting_after=7)
    assert (last["code"], last["sequence_number"]) == ("stream_interrupted", 7)


def test_a_stream_is_resumed_after_the_last_that_was_heard(world: World) -> None:
    for piece in ("Because of ", "Rayleigh ", "scattering."):
        world.say(piece)
    told = told_to(world, DONE_JOB)
    for number in range(len(told)):
        rest = told_to(world, DONE_JOB, starting_after=number)
        assert rest == told[number + 1 :]
    beyond = told_to(world, DONE_JOB, starting_after=10_000)
    assert beyond[0]["code"] == "stream_restarted", "what its reader has is unknown"
    assert beyond[-1]["type"] == "response.completed"


def test_a_reader_that_leaves_ends_its_stream_and_lets_go_of_the_job(world: World) -> None:
    stream = world.stream()
    steps = stream.steps(lambda: None)
    next(steps)
    assert len(world.watchers) == 1
    with pytest.raises(StopIteration):
        steps.throw(ClientGone())
    assert world.watchers == []
    stream.close()
    assert world.cancelled == [QUEUED.id]
