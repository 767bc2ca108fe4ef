"""The publisher against a stand-in for Redis that answers, hangs or refuses as it is told."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from uuid import UUID

import pytest

from headrace.domain.answers import TokenLogprob, alternative
from headrace.domain.ids import new_id
from headrace.domain.jobs import StreamPiece
from headrace.domain.prompts.tools import ToolCallPiece
from headrace.errors import BrokerUnavailable
from workers.engines.base import Delta
from workers.running.publisher import FLUSH_EVERY_S, Publisher

#: How long the stand-in hangs before it fails.
HANGS_S = 10.0


@dataclass
class FakeStreams:
    """Keeps what is published.

    Attributes:
        text: of all pieces that each job's readers have, from the last restart on.
        calls: the pieces of each round trip.
        error: what every call meets, or one of them has met, when `loses_replies`: then it is done all the same.
        gate: calls of `publish` wait for it.
        begins: calls of `begin` wait for it.
        ended: the jobs of each call of `end`.
        refused: claims that are fenced.
    """

    text: dict[UUID, str] = field(default_factory=lambda: defaultdict(str))
    begun: list[tuple[UUID, int, bool]] = field(default_factory=list)
    calls: list[list[StreamPiece]] = field(default_factory=list)
    error: Exception | None = None
    loses_replies: bool = False
    gate: threading.Event = field(default_factory=threading.Event)
    begins: threading.Event = field(default_factory=threading.Event)
    refused: set[UUID] = field(default_factory=set)
    ended: list[list[UUID]] = field(default_factory=list)

    def begin(self, job_id: UUID, enqueue_no: int, *, anew: bool = False) -> str | None:
        assert self.begins.wait(HANGS_S)
        if self.error:
            raise self.error
        self.begun.append((job_id, enqueue_no, anew))
        if job_id in self.refused:
            return None
        if anew:
            self.text[job_id] = ""
        return self.text.setdefault(job_id, "")

    def publish(self, pieces: list[StreamPiece]) -> list[bool]:
        self.calls.append(pieces)
        assert self.gate.wait(HANGS_S)
        if self.error and not self.loses_replies:
            raise self.error
        for piece in pieces:
            have = self.text[piece.job_id].encode()
            assert len(have) >= piece.before_bytes
            if piece.job_id not in self.refused:
                new = piece.text.encode()[len(have) - piece.before_bytes :]
                self.text[piece.job_id] += new.decode()
        if self.error:
            raise self.error
        return [piece.job_id not in self.refused for piece in pieces]

    def end(self, *job_ids: UUID) -> None:
        self.ended.append(list(job_ids))
        if self.error:
            raise self.error


@pytest.fixture
def streams() -> FakeStreams:
    fake = FakeStreams()
    fake.gate.set()
    fake.begins.set()
    return fake


@pytest.fixture
def publisher(streams: FakeStreams) -> Iterator[Publisher]:
    publisher = Publisher(streams)  # type: ignore[arg-type]
    publisher.begin()
    yield publisher
    streams.gate.set()
    publisher.end()


def always(text: str) -> bool:
    return True


def never(text: str) -> bool:
    return False


def wait_until(condition: Callable[[], bool], deadline_s: float = 10.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.002)


def test_text_is_published_while_it_is_made(publisher: Publisher, streams: FakeStreams) -> None:
    job_id = new_id()
    with publisher.publishing(job_id, 1, always) as (prefix, add):
        assert prefix == ""
        add(Delta("one "))
        wait_until(lambda: streams.text[job_id] == "one ")
        add(Delta("two"))
        wait_until(lambda: streams.text[job_id] == "one two")


def test_each_piece_names_its_answer_and_its_tokens(publisher: Publisher, streams: FakeStreams) -> None:
    job_id = new_id()
    streams.gate.clear()
    with publisher.publishing(job_id, 1, always) as (_, add):
        add(Delta("first"))
        wait_until(lambda: len(streams.calls) == 1)
        for piece in (Delta("one ", choice=1, tokens=1), Delta("zero", tokens=2), Delta("two", choice=1, tokens=3)):
            add(piece)
        streams.gate.set()
    told = [(piece.choice, piece.text, piece.tokens) for pieces in streams.calls for piece in pieces]
    assert told == [(0, "first", 0), (1, "one two", 3), (0, "zero", 2)]


def test_all_is_published_when_the_attempt_ends(publisher: Publisher, streams: FakeStreams) -> None:
    job_id = new_id()
    with publisher.publishing(job_id, 1, always) as (_, add):
        for _ in range(1000):
            add(Delta("é"))
    assert streams.text[job_id] == "é" * 1000


def test_what_is_longer_than_redis_is_to_keep_has_its_beginning_published(
    publisher: Publisher, streams: FakeStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.running.publisher.MOST_BYTES", 8)
    job_id, other = new_id(), new_id()
    with (
        publisher.publishing(job_id, 1, always) as (_, add),
        publisher.publishing(other, 1, always) as (_, add_other),
    ):
        add(Delta("one "))
        add(Delta("two "))
        wait_until(lambda: streams.text[job_id] == "one two ")
        add(Delta("three"))
        add_other(Delta("three"))
    assert streams.text == {job_id: "one two ", other: "three"}


def token(text: str) -> TokenLogprob:
    return {**alternative(text, -0.5), "top_logprobs": [alternative("é", -0.25)]}


def test_log_probabilities_come_before_the_text_of_their_tokens(publisher: Publisher, streams: FakeStreams) -> None:
    job_id = new_id()
    tokens = [token("one"), token(" two"), token(" é")]
    streams.gate.clear()
    with publisher.publishing(job_id, 1, always) as (_, add):
        add(Delta("one", (tokens[0],)))
        wait_until(lambda: len(streams.calls) == 1)
        add(Delta(" two", (tokens[1],)))
        add(Delta(" é", (tokens[2],)))
        streams.gate.set()

    first, second = streams.calls
    assert [(piece.kind, piece.text) for piece in (first[1], second[1])] == [("delta", "one"), ("delta", " two é")]
    told = [json.loads(line) for piece in (first[0], second[0]) for line in piece.text.splitlines()]
    assert ({first[0].kind, second[0].kind}, told) == ({"logprobs"}, tokens)


def test_what_is_thought_is_published_apart(publisher: Publisher, streams: FakeStreams) -> None:
    job_id = new_id()
    streams.gate.clear()
    with publisher.publishing(job_id, 1, always) as (_, add):
        add(Delta("", reasoning="Hm. "))
        wait_until(lambda: len(streams.calls) == 1)
        add(Delta("", reasoning="So\0:"))
        add(Delta("it ", (token("it "),)))
        add(Delta("is"))
        streams.gate.set()

    told = [(piece.kind, piece.text) for call in streams.calls for piece in call if piece.kind != "logprobs"]
    assert told == [("reasoning", "Hm. "), ("reasoning", "So\ufffd:"), ("delta", "it is")]


def test_outage_puts_no_log_probability_out_of_its_place(publisher: Publisher, streams: FakeStreams) -> None:
    job_id = new_id()
    tokens = [token(text) for text in "abcd"]
    with publisher.publishing(job_id, 1, always) as (_, add):
        wait_until(lambda: bool(streams.begun))
        for number, each in enumerate(tokens):
            streams.error, streams.loses_replies = BrokerUnavailable("gone"), bool(number % 2)
            calls = len(streams.calls)
            add(Delta(each["token"], (each,)))
            wait_until(lambda calls=calls: len(streams.calls) >= calls + 2)
        streams.error = None
        whole = "".join(f"{json.dumps(each, separators=(',', ':'))}\n{each['token']}" for each in tokens)
        wait_until(lambda: streams.text[job_id] == whole)


def test_attempts_share_round_trips(publisher: Publisher, streams: FakeStreams) -> None:
    job_ids = [new_id() for _ in range(16)]
    together = threading.Barrier(16)

    def attempt(job_id: UUID) -> None:
        with publisher.publishing(job_id, 1, always) as (_, add):
            together.wait(10)
            for i in range(60):
                add(Delta(f"{i} "))
                threading.Event().wait(FLUSH_EVERY_S / 10)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(attempt, job_ids))

    assert set(streams.text.values()) == {"".join(f"{i} " for i in range(60))}
    pieces = sum(map(len, streams.calls))
    assert len(streams.calls) < pieces / 3 < 16 * 60 / 3


def test_engine_is_not_held_up_by_a_redis_that_hangs(publisher: Publisher, streams: FakeStreams) -> None:
    job_id = new_id()
    streams.gate.clear()
    began = time.monotonic()
    with publisher.publishing(job_id, 1, always) as (_, add):
        add(Delta("first"))
        wait_until(lambda: len(streams.calls) == 1)
        for _ in range(10_000):
            add(Delta("x"))
    assert time.monotonic() - began < HANGS_S / 2
    assert len(streams.calls) == 1


def test_outage_leaves_no_hole_and_nothing_twice(publisher: Publisher, streams: FakeStreams) -> None:
    job_id = new_id()
    with publisher.publishing(job_id, 1, always) as (_, add):
        add(Delta("before "))
        wait_until(lambda: streams.text[job_id] == "before ")
        for loses_replies in (False, True):
            streams.error, streams.loses_replies = BrokerUnavailable("gone"), loses_replies
            calls = len(streams.calls)
            add(Delta("during "))
            wait_until(lambda calls=calls: len(streams.calls) >= calls + 2)
        add(Delta("é"))
        streams.error = None
        wait_until(lambda: streams.text[job_id] == "before during during é")


def test_end_does_not_wait_for_a_redis_that_is_known_to_be_down(
    publisher: Publisher, streams: FakeStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.running.publisher.LAST_FLUSH_S", 20)
    with publisher.publishing(new_id(), 1, always) as (_, add):
        wait_until(lambda: bool(streams.begun))
        streams.error = BrokerUnavailable("gone")
        add(Delta("text"))
        wait_until(lambda: len(streams.calls) >= 2)
        began = time.monotonic()
    assert time.monotonic() - began < 10


def test_later_claim_continues_what_is_published(publisher: Publisher, streams: FakeStreams) -> None:
    job_id = new_id()
    streams.text[job_id] = "déjà "
    with publisher.publishing(job_id, 2, always) as (prefix, add):
        assert prefix == "déjà "
        add(Delta("vu"))
    assert streams.text[job_id] == "déjà vu"


def test_first_claim_begins_while_the_engine_computes(publisher: Publisher, streams: FakeStreams) -> None:
    job_id = new_id()
    streams.begins.clear()
    # Redis hangs, and the engine need not wait for it.
    with publisher.publishing(job_id, 1, always) as (prefix, add):
        assert prefix == ""
        streams.begins.set()
        wait_until(lambda: bool(streams.begun))
        assert not streams.calls
        add(Delta("one"))
    assert (streams.begun, streams.text) == ([(job_id, 1, True)], {job_id: "one"})


def test_first_piece_does_not_wait_for_the_other_streams(
    publisher: Publisher, streams: FakeStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.running.publisher.FLUSH_EVERY_S", 60)
    monkeypatch.setattr("workers.running.publisher.LAST_FLUSH_S", 0)
    first, second = new_id(), new_id()
    with (
        publisher.publishing(first, 1, always) as (_, add_first),
        publisher.publishing(second, 1, always) as (_, add_second),
    ):
        add_first(Delta("one"))
        wait_until(lambda: streams.text[first] == "one")
        # Later pieces gather, so that the thread is now in its pause.
        add_first(Delta("two"))
        add_second(Delta("three"))
        wait_until(lambda: streams.text[second] == "three")
        # What had gathered went along.
        wait_until(lambda: streams.text[first] == "onetwo")
        calls = len(streams.calls)
        add_second(Delta("four"))
        assert len(streams.calls) == calls


def test_text_that_cannot_be_continued_starts_anew(publisher: Publisher, streams: FakeStreams) -> None:
    job_id = new_id()
    streams.text[job_id] = "old"
    with publisher.publishing(job_id, 2, never) as (prefix, add):
        assert prefix == ""
        add(Delta("new"))
    assert streams.text[job_id] == "new"
    assert streams.begun == [(job_id, 2, False), (job_id, 2, True)]


def test_claim_that_redis_has_not_heard_of_begins_anew_once_it_can(publisher: Publisher, streams: FakeStreams) -> None:
    job_id = new_id()
    streams.text[job_id] = "heard before"
    streams.error = BrokerUnavailable("gone")
    with publisher.publishing(job_id, 2, always) as (prefix, add):
        assert prefix == ""
        add(Delta("all of "))
        streams.error = None
        add(Delta("it"))
        wait_until(lambda: streams.text[job_id] == "all of it")
    assert streams.begun == [(job_id, 2, True)]


def test_fenced_attempt_is_dropped_and_the_others_are_not(publisher: Publisher, streams: FakeStreams) -> None:
    fenced, other = new_id(), new_id()
    with (
        publisher.publishing(fenced, 1, always) as (_, add_fenced),
        publisher.publishing(other, 1, always) as (_, add_other),
    ):
        wait_until(lambda: len(streams.begun) == 2)
        streams.refused.add(fenced)
        for _ in range(3):
            add_fenced(Delta("x"))
            add_other(Delta("y"))
            wait_until(lambda: not publisher._open[1].pieces)
        wait_until(lambda: streams.text[other] == "yyy")
        wait_until(lambda: publisher._open[0].is_dropped)
        calls = len(streams.calls)
        add_fenced(Delta("z"))
        add_other(Delta("z"))
        wait_until(lambda: streams.text[other] == "yyyz")
        assert all(piece.job_id == other for call in streams.calls[calls:] for piece in call)
    assert streams.text[fenced] == ""


def test_claim_that_is_too_late_publishes_nothing(publisher: Publisher, streams: FakeStreams) -> None:
    job_id = new_id()
    streams.refused.add(job_id)
    with publisher.publishing(job_id, 2, always) as (prefix, add):
        assert prefix == ""
        add(Delta("x"))
    assert streams.calls == []


def test_what_postgres_cannot_hold_is_heard_as_it_is_stored(publisher: Publisher, streams: FakeStreams) -> None:
    job_id = new_id()
    with publisher.publishing(job_id, 1, always) as (_, add):
        add(Delta("a\0b\ud800"))
    assert streams.text[job_id] == "a\ufffdb\ufffd"


def test_fault_does_not_end_the_thread(
    publisher: Publisher, streams: FakeStreams, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = new_id()
    with publisher.publishing(job_id, 1, always) as (_, add):
        wait_until(lambda: bool(streams.begun))
        streams.error = RuntimeError("a bug")
        add(Delta("text"))
        wait_until(lambda: bool(streams.calls))
        streams.error = None
        wait_until(lambda: streams.text[job_id] == "text")
    assert "publisher_fault" in caplog.messages


def test_end_is_safe_for_a_publisher_that_never_began(streams: FakeStreams) -> None:
    Publisher(streams).end()  # type: ignore[arg-type]


def test_the_streams_of_ended_jobs_expire_together_the_last_ones_at_the_end(
    publisher: Publisher, streams: FakeStreams
) -> None:
    jobs = [new_id() for _ in range(3)]
    with publisher._changed:
        publisher.forget(jobs[0])
        publisher.forget(jobs[1])
    wait_until(lambda: streams.ended == [jobs[:2]])
    publisher.forget(jobs[2])
    publisher.end()
    assert streams.ended == [jobs[:2], jobs[2:]]


def test_a_redis_that_does_not_end_a_stream_has_the_next_pieces_published(
    publisher: Publisher, streams: FakeStreams
) -> None:
    job_id, ended = new_id(), new_id()
    with publisher.publishing(job_id, 1, always) as (_, add):
        add(Delta("one "))
        wait_until(lambda: streams.text[job_id] == "one ")
        streams.error = BrokerUnavailable("gone")
        publisher.forget(ended)
        wait_until(lambda: streams.ended == [[ended]])
        streams.error = None
        add(Delta("two"))
        wait_until(lambda: streams.text[job_id] == "one two")


def test_calls_of_tools_are_published_after_the_text_one_piece_for_each(
    publisher: Publisher, streams: FakeStreams
) -> None:
    job_id = new_id()
    streams.gate.clear()
    with publisher.publishing(job_id, 1, always) as (_, add):
        add(Delta("I ", tool_calls=(ToolCallPiece(0, "a", "f"),)))
        wait_until(lambda: len(streams.calls) == 1)
        add(Delta("", tool_calls=(ToolCallPiece(0, arguments='{"x":'),)))
        add(Delta("call.", tool_calls=(ToolCallPiece(0, arguments=" 1}"), ToolCallPiece(1, "b", "g", "{}"))))
        streams.gate.set()
    assert [[piece.kind for piece in call] for call in streams.calls] == [
        ["delta", "tool_call"],
        ["delta", "tool_call", "tool_call"],
    ]
    told = [
        ToolCallPiece(**json.loads(piece.text)) for call in streams.calls for piece in call if piece.kind != "delta"
    ]
    assert told == [
        ToolCallPiece(0, "a", "f"),
        ToolCallPiece(0, arguments='{"x": 1}'),
        ToolCallPiece(1, "b", "g", "{}"),
    ]


def test_a_call_is_published_as_it_will_be_stored(publisher: Publisher, streams: FakeStreams) -> None:
    with publisher.publishing(new_id(), 1, always) as (_, add):
        add(Delta("", tool_calls=(ToolCallPiece(0, "a", "f", '{"x": "\0\ud800"}'),)))
    [[piece]] = streams.calls
    assert ToolCallPiece(**json.loads(piece.text)) == ToolCallPiece(0, "a", "f", '{"x": "\ufffd\ufffd"}')
