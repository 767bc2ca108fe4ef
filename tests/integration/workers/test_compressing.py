"""Jobs whose prompts are compressed, on real servers and simulated engines: what is sent, stored and booked."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.broker.admission import Admission
from headrace.config import PoolSettings, Settings
from headrace.domain.jobs import Job
from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.compression import Compression
from headrace.domain.queues import Route, Ticket
from headrace.domain.states import JobState
from headrace.policies.compression import plain
from headrace.policies.tokens import EstimatingTokenizer
from headrace.store import Store, jobs
from headrace.store.jobs import overview, texts
from headrace.tables import jobs as jobs_table
from headrace.tables import ledger
from tests import one_attempt
from workers.compressing import Compressor
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
PLAIN = Compression("plain")
SHORTER = plain(TALK, PLAIN)

Start = Callable[..., Worker]
Run = Callable[..., Job]


def tokens(messages: tuple[Message, ...]) -> int:
    return EstimatingTokenizer().count(messages)


@pytest.fixture
def start(settings: Settings, store: Store, admission: Admission) -> Iterator[Start]:
    """Starts a worker of the pool `chat`."""
    with ExitStack() as stack:

        def begin() -> Worker:
            pools = {"chat": PoolSettings(engine="simulator")}
            changes = {"pools": pools, "drain_s": 0.0, "sample_every_s": 3600.0}
            hooks = Hooks(lambda: None, lambda: None)
            worker = Worker(settings.model_copy(update=changes), Route.POOL, store, admission, hooks)
            worker.start("chat@test")
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


def test_a_job_for_the_paid_api_is_compressed_by_an_estimate(
    start: Start, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket = queued(messages=TALK, sampling=Sampling(16, temperature=0.0, compression=PLAIN))
    with store.begin() as db:
        worker_id = start().execute.state.id
        claim = one_attempt.claim(db, ticket.job_id, ticket.enqueue_no, worker_id, "openai")
    assert claim is not None
    shrunk = list[int]()
    paid = Compressor(EstimatingTokenizer, lambda _, left: shrunk.append(left))

    sent = paid.compress(claim)

    assert sent.sent == SHORTER
    assert (sent.messages, shrunk) == (TALK, [tokens(sent.sent)])


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
