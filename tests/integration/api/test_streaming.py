"""Streams on real servers, through the unchanged SDK: what is published is heard, resumed, and ends with the job."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import httpx2
import openai
import pytest
import sqlalchemy as sa
from openai import OpenAI
from redis import Redis
from werkzeug.serving import make_server

from headrace.broker.admission import Admission
from headrace.broker.streams import Streams
from headrace.domain.attempts import AttemptEnd, Usage
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id, parse_id
from headrace.domain.jobs import StreamPiece
from headrace.domain.limits import Cost
from headrace.domain.queues import KEY_PREFIX
from headrace.domain.states import JobState
from headrace.errors import SlotsFull
from headrace.store import Store
from headrace.store.fleet import workers
from headrace.tables import job_texts, jobs
from tests import one_attempt
from tests.waiting import until
from tests.web import ApiClient, Web

PROMPT = "Why is the sky blue?"
PIECES = ["Because of ", "Rayleigh ", "scattering."]
TEXT = "".join(PIECES)


class Run:
    """Runs one queued job as a worker would, step by step."""

    def __init__(self, store: Store, admission: Admission, streams: Streams, job_id: UUID) -> None:
        self._store, self._admission, self._streams, self._job_id = store, admission, streams, job_id
        worker = WorkerInfo(new_id(), "gpu@test", "host-1", "chat", "simulator", "served", 8, 2048, 65_536, 16)
        with store.begin() as db:
            workers.register(db, worker, 30)
            claim = one_attempt.claim(db, job_id, 1, worker.id, "simulator")
            assert claim is not None
        self._claim, self._said = claim, ""
        assert streams.begin(job_id, 1) == ""

    def say(self, text: str) -> None:
        piece = StreamPiece(self._job_id, 1, len(self._said.encode()), text)
        assert self._streams.publish([piece]) == [True]
        self._said += text

    def end(self, text: str | None = TEXT, state: JobState = JobState.SUCCEEDED) -> None:
        end = AttemptEnd(
            "succeeded", 0.5, Cost(Decimal(0), "test-1"), "compute", Usage(9, 7, 2), text, "stop", "served"
        )
        with self._store.begin() as db:
            one_attempt.finish(db, self._claim, state, end)
        self._streams.end(self._job_id)
        self._admission.announce_ended([self._job_id])


@pytest.fixture
def streams(redis: Redis) -> Streams:
    return Streams(redis)


@pytest.fixture
def run(store: Store, admission: Admission, streams: Streams) -> Callable[[UUID], Run]:
    return lambda job_id: Run(store, admission, streams, job_id)


@pytest.fixture
def sdk(base_url: str, key: str) -> Iterator[OpenAI]:
    with OpenAI(api_key=key, base_url=f"{base_url}/v1", _strict_response_validation=True, max_retries=0) as client:
        yield client


@pytest.fixture
def serve() -> Iterator[Callable[[Web], str]]:
    """Serves an app on loopback, and returns its address."""
    with ExitStack() as servers:

        def start_server(web: Web) -> str:
            server = make_server("127.0.0.1", 0, web, threaded=True)
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            for undo in (server.server_close, thread.join, server.shutdown):
                servers.callback(undo)
            return f"http://127.0.0.1:{server.server_port}"

        yield start_server


class Listener:
    """Hears a stream in a thread of its own."""

    def __init__(self, stream: Any) -> None:
        self.heard: list[Any] = []
        self._thread = threading.Thread(target=self._listen, args=(stream,))
        self._thread.start()

    def _listen(self, stream: Any) -> None:
        for event in stream:
            self.heard.append(event)

    def all(self) -> list[Any]:
        """Everything, once the stream has ended."""
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.heard


def text_of(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def has_heard(listener: "Listener", text: str) -> bool:
    return text_of(listener.heard) == text


def has_free_slot(web: Web) -> bool:
    try:
        with web.deps.waits.hold("stream", new_id()):
            return True
    except SlotsFull:
        return False


def start(sdk: OpenAI, **arguments: Any) -> tuple[UUID, Any]:
    """Create a streaming response; returns its job and the stream, after its first event."""
    stream = sdk.responses.create(**{"input": PROMPT, "background": True, "stream": True, **arguments})
    created = next(iter(stream))
    assert (created.type, created.sequence_number, created.response.status) == ("response.created", 0, "queued")
    return parse_id(created.response.id), stream


def streamed(sdk: OpenAI, run: Callable[[UUID], Run]) -> tuple[str, list[Any]]:
    """A response that was told and has ended: its id, and its events after the first."""
    job_id, stream = start(sdk)
    listener, running = Listener(stream), run(job_id)
    for piece in PIECES:
        running.say(piece)
    running.end()
    return f"resp_{job_id.hex}", listener.all()


def test_a_reader_hears_each_piece_when_it_is_published(sdk: OpenAI, run: Callable[[UUID], Run]) -> None:
    job_id, stream = start(sdk)
    listener, running = Listener(stream), run(job_id)
    for count, piece in enumerate(PIECES, 1):
        running.say(piece)
        until(partial(has_heard, listener, "".join(PIECES[:count])))
    running.end()
    events = listener.all()
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == text_of(events) == TEXT
    # Its first event, number 0, was heard at the start.
    numbers = [event.sequence_number for event in events]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_reader_may_come_back_after_any_event(sdk: OpenAI, run: Callable[[UUID], Run]) -> None:
    response_id, events = streamed(sdk, run)
    for index, event in enumerate(events):
        number = event.sequence_number
        rest = list(sdk.responses.retrieve(response_id, stream=True, starting_after=number))
        assert [each.to_dict() for each in rest] == [each.to_dict() for each in events[index + 1 :]]


def test_a_reader_may_come_back_while_it_runs(sdk: OpenAI, run: Callable[[UUID], Run]) -> None:
    job_id, stream = start(sdk)
    running = run(job_id)
    running.say(PIECES[0])
    first = next(event for event in stream if event.type == "response.output_text.delta")
    stream.close()
    running.say(PIECES[1])
    again = sdk.responses.retrieve(f"resp_{job_id.hex}", stream=True, starting_after=first.sequence_number)
    listener = Listener(again)
    running.say(PIECES[2])
    running.end()
    assert text_of(listener.all()) == "".join(PIECES[1:])


def test_the_sdks_own_helper_follows_to_the_final_response(sdk: OpenAI, run: Callable[[UUID], Run]) -> None:
    response_id, _ = streamed(sdk, run)
    with sdk.responses.stream(response_id=response_id, starting_after=4) as stream:
        assert text_of(list(stream)) == TEXT
        assert stream.get_final_response().output_text == TEXT


def test_without_redis_the_whole_text_comes_from_the_answer(
    sdk: OpenAI, run: Callable[[UUID], Run], redis: Redis
) -> None:
    response_id, events = streamed(sdk, run)
    redis.flushall()
    told = list(sdk.responses.retrieve(response_id, stream=True))
    assert [event.delta for event in told if event.type == "response.output_text.delta"] == [TEXT]
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.responses.retrieve(response_id, stream=True, starting_after=events[-4].sequence_number)
    assert raised.value.code == "stream_not_available"
    assert f"GET /v1/responses/{response_id}" in raised.value.message


def test_text_heard_is_text_stored_when_redis_is_wiped_on_the_way(
    sdk: OpenAI, run: Callable[[UUID], Run], redis: Redis
) -> None:
    job_id, stream = start(sdk)
    listener, running = Listener(stream), run(job_id)
    running.say(PIECES[0])
    until(partial(has_heard, listener, PIECES[0]))
    redis.flushall()
    running.end()
    assert text_of(listener.all()) == TEXT


@pytest.fixture
def lose(redis: Redis) -> Callable[[UUID], Callable[[], None]]:
    """Keeps what Redis has of a job's stream; what it returns promotes a replica that has no more than that."""

    def keep(job_id: UUID) -> Callable[[], None]:
        key = f"{KEY_PREFIX}stream:{job_id.hex}"
        redis.copy(key, f"{key}:kept")
        return lambda: redis.copy(f"{key}:kept", key, replace=True)

    return keep


@pytest.mark.parametrize("heard", [2, 3])
def test_a_reader_who_comes_back_to_less_than_it_was_told_hears_the_answer_anew(
    sdk: OpenAI, run: Callable[[UUID], Run], lose: Callable[[UUID], Callable[[], None]], heard: int
) -> None:
    """Found by `failover.py`: the stream went on after a number that Redis no longer had, and said it was complete."""
    job_id, stream = start(sdk)
    running = run(job_id)
    running.say(PIECES[0])
    promote = lose(job_id)
    for piece in PIECES[1:heard]:
        running.say(piece)
    told = []
    while text_of(told) != "".join(PIECES[:heard]):
        told.append(next(stream))
    stream.close()
    promote()
    listener = Listener(
        sdk.responses.retrieve(f"resp_{job_id.hex}", stream=True, starting_after=told[-1].sequence_number)
    )
    running.end()
    events = listener.all()
    assert (events[0].type, events[0].code) == ("error", "stream_restarted")
    assert (text_of(events), events[-1].type) == (TEXT, "response.completed")
    numbers = [event.sequence_number for event in (*told, *events)]
    assert numbers == sorted(set(numbers))


def test_a_claim_that_continues_less_than_was_told_adds_nothing_to_it(
    sdk: OpenAI,
    run: Callable[[UUID], Run],
    lose: Callable[[UUID], Callable[[], None]],
    streams: Streams,
) -> None:
    """Neither for the reader that stayed nor for the one that comes back: both hear the stored answer."""
    job_id, stream = start(sdk)
    stayed, running = Listener(stream), run(job_id)
    running.say(PIECES[0])
    until(partial(has_heard, stayed, PIECES[0]))
    promote = lose(job_id)
    running.say(PIECES[1])
    until(partial(has_heard, stayed, "".join(PIECES[:2])))
    number = stayed.heard[-1].sequence_number
    promote()
    assert streams.begin(job_id, 2) == PIECES[0]
    said, pieces = PIECES[0], ["Mie ", "scattering", " makes clouds white."]
    for piece in pieces:
        assert streams.publish([StreamPiece(job_id, 2, len(said), piece)]) == [True]
        said += piece
    anew = Listener(sdk.responses.retrieve(f"resp_{job_id.hex}", stream=True))
    until(partial(has_heard, anew, said))
    again = Listener(sdk.responses.retrieve(f"resp_{job_id.hex}", stream=True, starting_after=number))
    running.end(said)
    assert (text_of(anew.all()), anew.heard[-1].type) == (said, "response.completed")
    for listener, had in ((stayed, ""), (again, "".join(PIECES[:2]))):
        assert listener.all()[-1].type == "response.completed"
        assert text_after_restart(listener.heard, had) == said


def text_after_restart(events: list[Any], text: str = "") -> str:
    """What a reader has in the end that had this text."""
    for event in events:
        match event.type:
            case "error":
                text = ""
            case "response.output_text.delta":
                text += event.delta
    return text


def test_a_response_that_was_not_created_as_a_stream_has_none(sdk: OpenAI) -> None:
    made = sdk.responses.create(input=PROMPT, background=True)
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.responses.retrieve(made.id, stream=True)
    assert raised.value.code == "stream_not_available"


def test_a_chat_completion_is_heard_in_chunks(sdk: OpenAI, run: Callable[[UUID], Run]) -> None:
    answer = sdk.chat.completions.with_raw_response.create(
        model=next(iter(sdk.models.list())).id,
        messages=[{"role": "user", "content": PROMPT}],
        stream=True,
        stream_options={"include_usage": True},
    )
    # The head of the answer comes at acceptance, the chunk with the role with the first text.
    listener, running = Listener(answer.parse()), run(parse_id(answer.headers["x-job-id"]))
    for piece in PIECES:
        running.say(piece)
    running.end()
    first, *told, finish, usage = listener.all()
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert [chunk.choices[0].delta.content for chunk in told] == PIECES
    assert (finish.choices[0].finish_reason, usage.usage.completion_tokens) == ("stop", 7)


def test_a_chat_completion_that_fails_raises_in_the_sdk(sdk: OpenAI, run: Callable[[UUID], Run], store: Store) -> None:
    messages: Any = [{"role": "user", "content": PROMPT}]
    model = next(iter(sdk.models.list())).id
    answer = sdk.chat.completions.with_raw_response.create(model=model, messages=messages, stream=True)
    run(parse_id(answer.headers["x-job-id"])).end(None, JobState.FAILED)
    with pytest.raises(openai.APIError) as raised:
        list(answer.parse())
    assert raised.value.code


@pytest.mark.parametrize(("is_background", "state"), [(False, "cancelled"), (True, "queued")])
def test_a_reader_who_goes_takes_his_job_along_unless_it_is_in_the_background(
    build_web: Callable[..., Web],
    serve: Callable[[Web], str],
    key: str,
    store: Store,
    is_background: bool,
    state: str,
) -> None:
    web = build_web(keep_alive_s=0.05, stream_slots=1)
    with OpenAI(api_key=key, base_url=f"{serve(web)}/v1", max_retries=0) as sdk:
        job_id, stream = start(sdk, background=is_background)
        stream.close()
        until(partial(has_free_slot, web))
    with store.begin() as db:
        assert db.scalar(sa.select(jobs.c.state).where(jobs.c.id == job_id)) == state


def test_a_silent_stream_is_kept_alive(build_web: Callable[..., Web], serve: Callable[[Web], str], key: str) -> None:
    url = f"{serve(build_web(keep_alive_s=0.05))}/v1/responses"
    body = {"input": PROMPT, "background": True, "stream": True}
    with httpx2.stream("POST", url, json=body, headers={"Authorization": f"Bearer {key}"}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-job-id"]
        lines = (line for line in response.iter_lines() if line.startswith(":"))
        assert list(itertools.islice(lines, 2)) == [": keep-alive"] * 2


def test_one_stream_too_many_is_refused_and_accepts_nothing(
    build_web: Callable[..., Web], serve: Callable[[Web], str], key: str, store: Store
) -> None:
    web = build_web(stream_slots=1)
    with OpenAI(api_key=key, base_url=f"{serve(web)}/v1", max_retries=0) as sdk:
        job_id, _ = start(sdk)
        with pytest.raises(openai.RateLimitError) as raised:
            start(sdk)
        assert raised.value.code == "sync_slots_full"
        assert raised.value.response.headers["Retry-After"] == "1"
        with store.begin() as db:
            assert db.scalars(sa.select(jobs.c.id)).all() == [job_id]
    web.deps.waits.close()


def test_an_open_stream_holds_no_database_connection_and_ends_with_the_process(sdk: OpenAI, web: Web) -> None:
    _, stream = start(sdk)
    listener = Listener(stream)
    parts = web.deps
    # One is kept for inserts.
    until(lambda: parts.store._engine.pool.checkedout() == 1)
    parts.waits.close()
    assert listener.all()[-1].code == "stream_interrupted"


def test_the_stream_of_a_job_whose_row_is_lost_ends_with_an_error(sdk: OpenAI, store: Store) -> None:
    job_id, stream = start(sdk)
    listener = Listener(stream)
    with store.begin() as db:
        # As after the promotion of a standby that never had it: no one says so.
        db.execute(sa.delete(job_texts).where(job_texts.c.job_id == job_id))
        db.execute(sa.delete(jobs).where(jobs.c.id == job_id))
    last = listener.all()[-1]
    assert (last.type, last.code) == ("error", "not_found")


def test_whoever_waits_for_an_expiry_sees_it_within_a_second(
    sdk: OpenAI, client: ApiClient, age: Callable[[UUID, timedelta], None]
) -> None:
    job_id, stream = start(sdk, extra_body={"job": {"max_wait": 30}})
    listener = Listener(stream)
    answers: list[Any] = []
    poll = threading.Thread(target=lambda: answers.append(client.get(f"/v1/jobs/job_{job_id.hex}?wait=60").get_json()))
    poll.start()
    age(job_id, timedelta(seconds=31))
    began = time.monotonic()
    poll.join(20)
    last = listener.all()[-1]
    assert time.monotonic() - began < 15, "the next poll is after a minute"
    assert answers[0]["status"] == "expired"
    assert (last.type, last.response.error.type) == ("response.failed", "expired")
