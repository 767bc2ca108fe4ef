"""Jobs whose prompts are compressed, on real servers and simulated engines: what is sent, stored and booked."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from redis import Redis

from headrace.broker import compressions
from headrace.broker.admission import Admission
from headrace.broker.compressions import CompressionReply, Compressions
from headrace.config import OverflowSettings, PoolSettings, Settings
from headrace.domain.jobs import Job
from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.compression import Compression
from headrace.domain.queues import OVERFLOW, Route, Ticket
from headrace.domain.states import JobState
from headrace.errors import EngineCrash, EngineFault
from headrace.policies.compression import plain
from headrace.policies.tokens import EstimatingTokenizer
from headrace.store import Store, jobs
from headrace.store.jobs import overview, texts
from headrace.tables import jobs as jobs_table
from headrace.tables import ledger
from tests import one_attempt
from tests.waiting import until
from workers import compressing
from workers.compressing import Compressor
from workers.engines.openai.engine import OpenAIEngine
from workers.engines.simulator.answer import fingerprint
from workers.worker import Hooks, Worker

NOTICE = "This message is confidential and meant for the one who reads it, in whole, at any time and place."
STORY = (
    "As everyone knows, the old mill stands by the river, where the water runs fast, and its wheel turns all day. "
    "In the winter of 1887, when the river froze, the miller went to town, sold his horse, and bought a stove."
)
TALK = (
    Message("system", "Be brief."),
    Message("user", f"{STORY}\n\n{NOTICE}"),
    Message("assistant", f"I see.\n\n\n\n{NOTICE}"),
    Message("user", "What did the miller   buy?"),
)
PLAIN, SURPRISE = Compression("plain"), Compression("surprise", 0.6)
SHORTER = plain(TALK, PLAIN)

Start = Callable[..., Worker]
Run = Callable[..., Job]


def tokens(messages: tuple[Message, ...]) -> int:
    return EstimatingTokenizer().count(messages)


@pytest.fixture
def start(settings: Settings, store: Store, admission: Admission, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a worker of a pool. Args: by: the pool that measures surprise for `chat`."""
    monkeypatch.setattr(compressions, "LOOK_S", 0.1)
    with ExitStack() as stack:

        def begin(pool: str = "chat", by: str = "chat", within_s: float = 10.0) -> Worker:
            pools = {
                "chat": PoolSettings(engine="simulator", compress_by=by, compress_within_s=within_s),
                "fast": PoolSettings(engine="simulator"),
            }
            changes = {"pools": pools, "pool": pool, "drain_s": 0.0, "sample_every_s": 3600.0}
            hooks = Hooks(lambda: None, lambda: None)
            worker = Worker(settings.model_copy(update=changes), Route.POOL, store, admission, hooks)
            worker.start(f"{pool}@test")
            stack.callback(worker.stop)
            return worker

        yield begin


def run_to_end(worker: Worker, ticket: Ticket) -> None:
    """Run the job of this ticket; returns once its end is on disk."""
    worker.execute.run(ticket.job_id, ticket.enqueue_no)


@pytest.fixture
def run(store: Store, queued: Callable[..., Ticket]) -> Run:
    """Runs a job on a worker; returns it as it has ended."""

    def end(worker: Worker, compression: Compression | None, **changes: Any) -> Job:
        sampling = Sampling(16, temperature=0.0, compression=compression)
        ticket = queued(messages=TALK, sampling=sampling, prompt_tokens=tokens(TALK), **changes)
        run_to_end(worker, ticket)
        with store.begin() as db:
            return jobs.find(db, ticket.app_id, ticket.job_id)

    return end


def was_sent(job: Job, messages: tuple[Message, ...]) -> bool:
    """Whether the engine got these messages."""
    return fingerprint(messages) in (job.answer or "")


def test_the_engine_gets_less_and_the_original_is_what_is_stored(start: Start, run: Run, store: Store) -> None:
    job = run(start(), PLAIN)

    assert job.state is JobState.SUCCEEDED
    assert was_sent(job, SHORTER)
    assert (job.original_tokens, job.prompt_tokens) == (tokens(TALK), tokens(SHORTER))
    with store.begin() as db:
        assert texts.conversation(db, job.app_id, job.id) == TALK
        charged = db.execute(sa.select(ledger.c.prompt_tokens, ledger.c.usd, ledger.c.saved_usd)).one()
        seen = db.execute(sa.text("SELECT * FROM compression_per_day")).one()
    assert charged.prompt_tokens == tokens(SHORTER)
    assert charged.saved_usd > 0
    assert (seen.app, seen.pool, seen.route, seen.jobs) == ("test", "chat", "pool", 1)
    assert (seen.original_tokens, seen.prompt_tokens) == (tokens(TALK), tokens(SHORTER))
    assert seen.saved_share == pytest.approx(1 - tokens(SHORTER) / tokens(TALK))
    assert seen.saved_usd == charged.saved_usd


def test_without_compression_nothing_of_it_is_written(start: Start, run: Run, store: Store) -> None:
    job = run(start(), None)

    assert was_sent(job, TALK)
    assert (job.original_tokens, job.prompt_tokens) == (None, tokens(TALK))
    with store.begin() as db:
        assert db.scalar(sa.select(ledger.c.saved_usd)) is None
        assert db.execute(sa.text("SELECT * FROM compression_per_day")).all() == []


def test_an_engine_measures_surprise_for_its_own_pool(start: Start, run: Run) -> None:
    job = run(start(by="chat"), SURPRISE)

    assert job.state is JobState.SUCCEEDED
    assert job.prompt_tokens < tokens(SHORTER) < (job.original_tokens or 0)


def test_another_pool_s_worker_measures_surprise(start: Start, run: Run, redis: Redis) -> None:
    own = run(start(by="chat"), SURPRISE)
    start("fast", by="fast")
    worker = start(by="fast")
    until(lambda: redis.exists("{headrace}:compress:served:fast"), "the pool is served")

    job = run(worker, SURPRISE)

    # Both engines are the same simulator, so they cut the same.
    assert (job.answer, job.prompt_tokens) == (own.answer, own.prompt_tokens)


def test_a_job_for_the_paid_api_is_measured_by_its_pool_s_choice(
    start: Start, run: Run, redis: Redis, store: Store, queued: Callable[..., Ticket]
) -> None:
    own = run(start(by="chat"), SURPRISE)
    measures = start("fast", by="fast")
    until(lambda: redis.exists("{headrace}:compress:served:fast"), "the pool is served")
    sampling = Sampling(16, temperature=0.0, compression=SURPRISE)
    ticket = queued(messages=TALK, sampling=sampling)
    with store.begin() as db:
        worker_id = measures.execute.state.id
        claim = one_attempt.claim(db, ticket.job_id, ticket.enqueue_no, worker_id, "openai")
    assert claim is not None
    pools = {"chat": PoolSettings(engine="openai", compress_by="fast")}
    shrunk = list[int]()
    paid = Compressor(
        pools, OVERFLOW, OpenAIEngine(OverflowSettings(), "sk-test", None), EstimatingTokenizer,
        Compressions(redis), lambda _, left: shrunk.append(left),
    )  # fmt: skip

    sent = paid.compress(claim)

    assert was_sent(own, sent.sent)
    assert (sent.messages, shrunk) == (TALK, [tokens(sent.sent)])


def test_without_a_worker_that_measures_plain_must_do(start: Start, run: Run) -> None:
    assert was_sent(run(start(by="fast"), SURPRISE), SHORTER)


def test_a_measurer_whose_engine_has_no_room_says_so_at_once(
    start: Start, run: Run, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressing, "MOST_TOKENS", 10)
    start("fast", by="fast")
    worker = start(by="fast", within_s=600.0)
    until(lambda: redis.exists("{headrace}:compress:served:fast"), "the pool is served")

    assert was_sent(run(worker, SURPRISE), SHORTER)


def test_a_prompt_that_another_release_cut_is_left_alone(
    start: Start, run: Run, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressing, "CompressionReply", lambda _, cuts: CompressionReply("of another text", cuts))
    start("fast", by="fast")
    worker = start(by="fast")
    until(lambda: redis.exists("{headrace}:compress:served:fast"), "the pool is served")

    assert was_sent(run(worker, SURPRISE), SHORTER)


def test_an_engine_that_cannot_measure_fails_no_job(start: Start, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = start()

    def fail(*_: Any) -> None:
        raise EngineFault("broken")

    monkeypatch.setattr(worker.execute.engine, "surprise", fail)

    assert was_sent(run(worker, SURPRISE), SHORTER)


def test_an_engine_that_dies_as_it_measures_leaves_a_suspect(
    start: Start, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = start()

    def die(*_: Any) -> None:
        raise EngineCrash("died", made_tokens=0)

    monkeypatch.setattr(worker.execute.engine, "surprise", die)

    job = run(worker, SURPRISE)

    assert (job.state, job.suspicion > 0) == (JobState.WAITING, True)


def test_a_retry_reserves_the_whole_prompt_again(start: Start, run: Run, store: Store) -> None:
    job = run(start(), PLAIN)
    with store.begin() as db:
        db.execute(sa.update(jobs_table).values(state=JobState.FAILED))
        [new] = overview.retry(db, [job.id]).values()
        again = jobs.find(db, job.app_id, new)

    assert (again.prompt_tokens, again.original_tokens) == (tokens(TALK), None)


def test_a_prompt_that_does_not_become_shorter_is_sent_as_it_is(
    start: Start, store: Store, queued: Callable[..., Ticket]
) -> None:
    messages = (Message("user", "Hi."),)
    ticket = queued(messages=messages, sampling=Sampling(16, compression=replace(PLAIN, also=("last_turn",))))

    run_to_end(start(), ticket)

    with store.begin() as db:
        job = jobs.find(db, ticket.app_id, ticket.job_id)
    assert (was_sent(job, messages), job.original_tokens) == (True, None)


def test_a_prompt_that_cannot_be_read_ends_no_measurer(
    start: Start, run: Run, redis: Redis, store: Store, queued: Callable[..., Ticket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressing, "AT_ONCE", 1)
    asker, ticket = Compressions(redis), queued(messages=TALK, sampling=Sampling(16, compression=SURPRISE))
    with store.begin() as db:
        db.execute(sa.text("UPDATE job_texts SET messages = '7'"))
    start("fast", by="fast")
    worker = start(by="fast")
    until(lambda: redis.exists("{headrace}:compress:served:fast"), "the pool is served")

    assert asker.ask("fast", ticket.job_id, 10.0) is None

    job = run(worker, SURPRISE)
    assert job.prompt_tokens < tokens(SHORTER), "it measures the next one"
