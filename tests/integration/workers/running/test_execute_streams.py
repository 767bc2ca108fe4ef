"""Jobs that are streamed, over attempts that fail, hang and are lost: what readers hear is what is stored."""

import json
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
from redis import Redis

from headrace.broker.admission import Admission
from headrace.broker.streams import KEEP_S, RUN_S, Streams
from headrace.config import PoolSettings, Settings, SimulatorSettings
from headrace.connections.redis import redis_client
from headrace.domain.answers import TokenLogprob, alternative
from headrace.domain.attempts import Usage
from headrace.domain.jobs import StreamEvent
from headrace.domain.prompts import Sampling
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.errors import EngineFault, HeadraceError
from headrace.policies.retries import RetryRules
from headrace.policies.tokens import EstimatingTokenizer
from headrace.store import Store, jobs
from tests.integration.workers.conftest import Make, job, run_job
from workers.engines.base import Delta, EngineLimits, FinishReason, Generation, GenerationRequest, OnDelta
from workers.engines.simulator.engine import SimulatorEngine
from workers.running.execute import Execute
from workers.running.publisher import Notices

ANSWER = "Water falls through the headrace."


@dataclass
class WordyEngine:
    """Says `ANSWER` word by word, from where it is told to; after some words it fails or waits for its abort.

    Attributes:
        error: what it fails with after `words`; it waits for its abort without one.
        words: how many it says before that; None for all, and a success.
        thought: what it thinks first.
        prefixes: what it was told to continue.
        said: set once it has said them.
    """

    name: str = "wordy"
    continues: bool = True
    error: HeadraceError | None = None
    words: int | None = None
    thought: str = ""
    prefixes: list[str] = field(default_factory=list)
    said: threading.Event = field(default_factory=threading.Event)
    aborted: threading.Event = field(default_factory=threading.Event)

    def start(self) -> EngineLimits:
        return EngineLimits(2048, 4)

    def generate(self, request: GenerationRequest, on_delta: OnDelta | None = None) -> Generation:
        self.prefixes.append(request.prefix)
        pieces = re.findall(r"\S+ ?", ANSWER[len(request.prefix) :])[: self.words]
        text = request.prefix + "".join(pieces)
        tokens = [_token(piece) for piece in pieces] if request.sampling.top_logprobs is not None else None
        if on_delta and self.thought:
            on_delta(Delta("", reasoning=self.thought))
        for piece in pieces if on_delta else ():
            on_delta(Delta(piece, (_token(piece),) if tokens else ()))
        self.said.set()
        reason: FinishReason = "stop"
        if self.words is not None:
            if self.error is not None:
                raise self.error
            assert self.aborted.wait(20)
            reason = "abort"
        thoughts = len(self.thought.split())
        usage = Usage(8, len(text.split()) + thoughts, reasoning_tokens=thoughts)
        logprobs = tuple(tokens) if tokens else None
        return Generation(text, usage, reason, "wordy-model", logprobs=logprobs, reasoning=self.thought)

    def abort(self, request_id: str) -> None:
        self.aborted.set()

    def check(self) -> None: ...

    def stop(self) -> None: ...


def _token(piece: str) -> TokenLogprob:
    return {**alternative(piece, -0.5), "top_logprobs": []}


@pytest.fixture
def streams(redis: Redis) -> Streams:
    return Streams(redis)


@pytest.fixture
def make_worker(bare_worker: Make, settings: Settings, admission: Admission) -> Callable[..., Execute]:
    """Makes workers without Celery, each with a publisher of its own."""

    def make(engine: Any, redis_url: str | None = None) -> Execute:
        server = redis_client(settings.model_copy(update={"redis_url": redis_url or settings.redis_url}))
        return bare_worker(engine, Notices(admission, ThreadPoolExecutor(1)), redis=server, rules=RetryRules(3))

    return make


def again(store: Store) -> Ticket:
    """Puts the one waiting job back into its queue."""
    with store.begin() as db:
        db.execute(sa.text("UPDATE jobs SET not_before = now()"))
        (ticket,) = jobs.enqueue_due(db)
    return ticket


def lost(store: Store) -> None:
    """Does as `rescue` does to the one running job."""
    with store.begin() as db:
        db.execute(sa.text("UPDATE jobs SET state = 'waiting', worker_id = NULL, not_before = now()"))


def heard(events: list[StreamEvent]) -> str:
    return "".join(event.text for event in events if event.kind == "delta")


def heard_logprobs(events: list[StreamEvent]) -> list[TokenLogprob]:
    return [json.loads(line) for event in events if event.kind == "logprobs" for line in event.text.splitlines()]


def test_what_is_heard_is_what_is_stored(
    make_worker: Callable[..., Execute], store: Store, streams: Streams, queued: Callable[..., Ticket], redis: Redis
) -> None:
    ticket = queued(stream=True)

    worker = make_worker(WordyEngine())
    worker.run(ticket.job_id, 1)
    worker.publisher.end()

    assert heard(streams.read(ticket.job_id)) == job(store, ticket).answer == ANSWER
    (key,) = redis.keys(f"*stream:{ticket.job_id.hex}")
    assert 0 < redis.ttl(key) <= KEEP_S


def test_job_that_is_not_streamed_has_no_listener_and_no_stream(
    make_worker: Callable[..., Execute], store: Store, redis: Redis, queued: Callable[..., Ticket]
) -> None:
    ticket, listeners = queued(), list[OnDelta | None]()

    class Listening(WordyEngine):
        def generate(self, request: GenerationRequest, on_delta: OnDelta | None = None) -> Generation:
            listeners.append(on_delta)
            return super().generate(request, on_delta)

    make_worker(Listening()).run(ticket.job_id, 1)

    assert (listeners, redis.keys(f"*stream:{ticket.job_id.hex}")) == ([None], [])
    assert job(store, ticket).answer == ANSWER


def test_second_attempt_continues_where_the_first_failed(
    make_worker: Callable[..., Execute],
    store: Store,
    streams: Streams,
    queued: Callable[..., Ticket],
    redis: Redis,
) -> None:
    ticket = queued(stream=True)
    make_worker(WordyEngine(words=2, error=EngineFault("broken"))).run(ticket.job_id, 1)
    first = streams.read(ticket.job_id)
    assert heard(first) == "Water falls "
    assert redis.ttl(redis.keys(f"*stream:{ticket.job_id.hex}")[0]) > RUN_S - 60  # It waits for the next attempt.

    engine = WordyEngine()
    make_worker(engine).run(ticket.job_id, again(store).enqueue_no)

    events = streams.read(ticket.job_id)
    assert engine.prefixes == ["Water falls "]
    assert {event.kind for event in events} == {"begin", "delta"}, "no restart"
    assert heard(first + streams.read(ticket.job_id, first[-1].number)) == job(store, ticket).answer == ANSWER


def test_attempt_that_was_handed_back_is_continued_under_the_same_number(
    make_worker: Callable[..., Execute], store: Store, streams: Streams, queued: Callable[..., Ticket]
) -> None:
    ticket = queued(stream=True)
    first = make_worker(WordyEngine(words=3))
    thread = threading.Thread(target=run_job, args=(first, ticket.job_id, 1))
    thread.start()
    assert first.engine.said.wait(10)
    first.state.attempts.stop(first.state.attempts.ids()[0], "draining")
    first.engine.abort("")
    thread.join(10)
    assert job(store, ticket).attempt == 0

    engine = WordyEngine()
    make_worker(engine).run(ticket.job_id, again(store).enqueue_no)

    assert job(store, ticket).attempt == 1
    assert engine.prefixes == ["Water falls through "]
    assert heard(streams.read(ticket.job_id)) == job(store, ticket).answer == ANSWER


def test_lost_attempt_that_still_runs_is_not_heard_beside_the_next(
    make_worker: Callable[..., Execute], store: Store, streams: Streams, queued: Callable[..., Ticket]
) -> None:
    ticket = queued(stream=True, sampling=Sampling(max_tokens=100))
    pool = PoolSettings(max_model_tokens=1000)
    slow, fast = (
        SimulatorEngine(SimulatorSettings(decode_tokens_per_s=rate, output_tokens=100), pool, EstimatingTokenizer())
        for rate in (100, 400)
    )
    for engine in (slow, fast):
        engine.start()
    first = make_worker(slow)
    thread = threading.Thread(target=run_job, args=(first, ticket.job_id, 1))
    thread.start()
    wait_until(lambda: len(streams.read(ticket.job_id)) > 2)

    lost(store)
    make_worker(fast).run(ticket.job_id, again(store).enqueue_no)
    thread.join(10)

    done, events = job(store, ticket), streams.read(ticket.job_id)
    assert (done.state, done.attempt, done.output_tokens) == (JobState.SUCCEEDED, 2, 100)
    assert {event.kind for event in events} == {"begin", "delta"}, "no restart"
    assert heard(events) == done.answer
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("continues", "sampling"),
    [
        (False, Sampling(16)),
        (True, Sampling(16, response_format={"type": "json_object"})),
        (True, Sampling(16, stop=("s through",))),
        (True, Sampling(16, top_logprobs=0)),
    ],
    ids=["engine", "structured output", "stop string across the seam", "log probabilities"],
)
def test_answer_that_cannot_be_continued_starts_again_and_says_so(
    make_worker: Callable[..., Execute],
    store: Store,
    streams: Streams,
    queued: Callable[..., Ticket],
    continues: bool,
    sampling: Sampling,
) -> None:
    ticket = queued(stream=True, sampling=sampling)
    make_worker(WordyEngine(words=2, error=EngineFault("broken"))).run(ticket.job_id, 1)

    engine = WordyEngine(continues=continues)
    make_worker(engine).run(ticket.job_id, again(store).enqueue_no)

    events = streams.read(ticket.job_id)
    (at,) = [i for i, event in enumerate(events) if event.kind == "restart"]
    assert engine.prefixes == [""]
    assert heard(events[:at]) == "Water falls "
    assert heard(events[at:]) == job(store, ticket).answer == ANSWER
    assert heard_logprobs(events[at:]) == list(job(store, ticket).logprobs or ())


def test_log_probabilities_are_heard_and_stored_with_the_text(
    make_worker: Callable[..., Execute], store: Store, streams: Streams, queued: Callable[..., Ticket]
) -> None:
    ticket = queued(stream=True, sampling=Sampling(16, top_logprobs=0))

    make_worker(WordyEngine()).run(ticket.job_id, 1)

    done, events = job(store, ticket), streams.read(ticket.job_id)
    assert heard(events) == done.answer == ANSWER
    assert (
        heard_logprobs(events) == list(done.logprobs or ()) == [_token(piece) for piece in re.findall(r"\S+ ?", ANSWER)]
    )
    with store.begin() as db:
        (listed,) = jobs.newest(db, ticket.app_id)
    assert (listed.answer, listed.logprobs) == (ANSWER, None)


@pytest.mark.parametrize("words", [0, 2], ids=["in the reasoning", "in the answer"])
def test_what_was_thought_is_thought_anew_by_the_next_attempt(
    make_worker: Callable[..., Execute], store: Store, streams: Streams, queued: Callable[..., Ticket], words: int
) -> None:
    ticket = queued(stream=True)
    make_worker(WordyEngine(words=words, error=EngineFault("broken"), thought="Hm. ")).run(ticket.job_id, 1)

    engine = WordyEngine(thought="So it is. ")
    make_worker(engine).run(ticket.job_id, again(store).enqueue_no)

    done, events = job(store, ticket), streams.read(ticket.job_id)
    (at,) = [i for i, event in enumerate(events) if event.kind == "restart"]
    assert engine.prefixes == [""]
    assert [event.text for event in events[at:] if event.kind == "reasoning"] == [done.reasoning] == ["So it is. "]
    assert heard(events[at:]) == done.answer == ANSWER
    assert (done.reasoning_tokens, done.output_tokens) == (3, 8)
    with store.begin() as db:
        (listed,) = jobs.newest(db, ticket.app_id)
        booked = db.scalar(sa.text("SELECT output_tokens FROM ledger WHERE kind = 'compute'"))
    assert (listed.reasoning, listed.reasoning_tokens, booked) == (None, 3, 8)


def test_cancelled_job_keeps_the_text_that_was_heard(
    make_worker: Callable[..., Execute], store: Store, streams: Streams, queued: Callable[..., Ticket]
) -> None:
    ticket = queued(stream=True)
    worker = make_worker(WordyEngine(words=3))
    thread = threading.Thread(target=run_job, args=(worker, ticket.job_id, 1))
    thread.start()
    assert worker.engine.said.wait(10)

    worker.state.attempts.stop(worker.state.attempts.ids()[0], "cancelled")
    worker.engine.abort("")
    thread.join(10)

    done = job(store, ticket)
    assert done.state == JobState.CANCELLED
    assert heard(streams.read(ticket.job_id)) == done.answer == "Water falls through "


def test_wiped_stream_costs_nothing_but_the_text_it_had(
    make_worker: Callable[..., Execute], store: Store, streams: Streams, queued: Callable[..., Ticket], redis: Redis
) -> None:
    ticket = queued(stream=True)
    make_worker(WordyEngine(words=2, error=EngineFault("broken"))).run(ticket.job_id, 1)
    last = streams.read(ticket.job_id)[-1].number
    redis.flushall()

    make_worker(WordyEngine()).run(ticket.job_id, again(store).enqueue_no)

    restart, *rest = streams.read(ticket.job_id, last)
    assert restart.kind == "restart"
    assert heard(rest) == job(store, ticket).answer == ANSWER


def test_job_is_answered_without_redis(
    make_worker: Callable[..., Execute], store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket = queued(stream=True)

    make_worker(WordyEngine(), redis_url="redis://127.0.0.1:1/0").run(ticket.job_id, 1)

    assert job(store, ticket).answer == ANSWER


def wait_until(condition: Callable[[], bool], deadline_s: float = 10.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.005)
