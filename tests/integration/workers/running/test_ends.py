"""Threads of one worker that claim and end jobs at once, while Postgres is slow, locked, away, or refuses: no end is
lost, told early, or billed twice."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from headrace.config import Settings
from headrace.connections import postgres
from headrace.domain.answers import Choice
from headrace.domain.attempts import Outcome, Usage
from headrace.domain.ids import show_id
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.errors import StoreUnavailable
from headrace.store import Store, jobs
from headrace.tables import ledger
from tests.integration.workers.conftest import Make, job
from tests.integration.workers.running.quick import ANSWER, DEADLINE_S, Heard, QuickEngine
from tests.waiting import until
from workers.engines.base import Generation, GenerationRequest, OnDelta
from workers.running.execute import ELSEWHERE, SMALL_CHARS, Execute
from workers.running.lease import Lease, LeaseTimes

SUCCEEDED = Outcome(JobState.SUCCEEDED)
LONG = "a" * (SMALL_CHARS + 1)
THREADS = 16


class SlowToWrite(Store):
    """Lets ends through when the test does, or loses their replies.

    Attributes:
        loses_reply, loses_claim: the reply of the next end is lost, or of every claim.
        away: how many ends find no Postgres.
        asked: set once an end was to be written.
    """

    def __init__(self, engine: sa.Engine) -> None:
        super().__init__(engine)
        self.open, self.asked = threading.Event(), threading.Event()
        self.open.set()
        self.loses_reply, self.loses_claim, self.away = False, False, 0

    def run(self, sql: str, parameters: Mapping[str, Any]) -> Sequence[Any]:
        if "INSERT INTO ledger" not in sql:
            rows = super().run(sql, parameters)
            if self.loses_claim and "INSERT INTO attempts" in sql:
                raise StoreUnavailable("Postgres was gone after the commit.")
            return rows
        self.asked.set()
        assert self.open.wait(DEADLINE_S)
        if self.away:
            self.away -= 1
            raise StoreUnavailable("Postgres is away.")
        loses_reply, self.loses_reply = self.loses_reply, False
        rows = super().run(sql, parameters)
        if loses_reply:
            raise StoreUnavailable("Postgres was gone after the commit.")
        return rows


@dataclass
class Bench:
    """A worker without Celery, whose ends go through `slow`, and the threads of its jobs."""

    execute: Execute
    engine: QuickEngine
    heard: Heard
    slow: SlowToWrite
    threads: ThreadPoolExecutor

    def start(self, ticket: Ticket) -> Future[Outcome]:
        """Run a job in a thread of its own."""
        return self.threads.submit(self.execute.run, ticket.job_id, ticket.enqueue_no)

    def start_with_held_end(self, first: Ticket, *others: Ticket) -> list[Future[Outcome]]:
        """Run jobs; their ends wait until the test opens `slow`, those of the others for one statement."""
        self.slow.open.clear()
        self.slow.asked.clear()
        endings = [self.start(first)]
        assert self.slow.asked.wait(DEADLINE_S)
        endings += map(self.start, others)
        until(lambda: self.execute._successes.waiting == len(others), "they wait together", DEADLINE_S)
        return endings


@pytest.fixture
def bench(bare_worker: Make, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("workers.running.execute.REWRITE_AFTER_S", 0.01)
    monkeypatch.setattr("workers.running.execute.LOCKED_FOR_S", 0.01)
    monkeypatch.setattr("workers.running.execute.CLOSE_TIMEOUT_S", 0.2)
    monkeypatch.setattr("headrace.connections.LOCK_TIMEOUT_MS", 100)
    engine, heard = QuickEngine(), Heard()
    slow = SlowToWrite(postgres(settings))
    execute = bare_worker(engine, heard, slow)
    with ThreadPoolExecutor(THREADS) as threads:
        yield Bench(execute, engine, heard, slow, threads)
        slow.open.set()
        execute.close()
    slow.close()


def bills(store: Store) -> list[str]:
    with store.begin() as db:
        return list(db.scalars(sa.select(ledger.c.kind)))


def test_nothing_of_an_end_leaves_the_worker_before_it_is_on_disk(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket = queued()
    [ending] = bench.start_with_held_end(ticket)
    assert not ending.done()
    assert (bench.heard.announced, bills(store), job(store, ticket).state) == ([], [], JobState.RUNNING)
    assert not bench.execute.state.attempts.wait_until_idle(0.1), "a worker that stops waits for the end"

    bench.slow.open.set()

    assert ending.result(DEADLINE_S) == SUCCEEDED
    assert bench.execute.state.attempts.wait_until_idle(DEADLINE_S)
    assert (bench.heard.announced, bills(store)) == ([ticket.job_id], ["compute"])
    assert (job(store, ticket).state, job(store, ticket).answer) == (JobState.SUCCEEDED, ANSWER)


def test_an_end_whose_claim_was_taken_away_is_not_written(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket = queued()
    [ending] = bench.start_with_held_end(ticket)
    with store.begin() as db:
        db.execute(sa.text("UPDATE jobs SET enqueue_no = enqueue_no + 1"))
    bench.slow.open.set()
    assert ending.result(DEADLINE_S) == ELSEWHERE
    assert (bench.heard.announced, bills(store), job(store, ticket).state) == ([], [], JobState.RUNNING)


def test_a_job_s_room_is_released_once_and_before_its_end_is_written(
    bench: Bench, queued: Callable[..., Ticket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While an end waits for Postgres, its worker may hold room for the next attempt of the same job."""
    released: list[UUID] = []
    monkeypatch.setattr(bench.execute.kv_budget, "release", lambda job_id, _=None: released.append(job_id))
    ticket, missed = queued(), queued()
    [ending] = bench.start_with_held_end(ticket)
    assert released == [ticket.job_id]
    bench.slow.open.set()
    assert ending.result(DEADLINE_S) == SUCCEEDED
    assert released == [ticket.job_id]

    assert bench.execute.run(missed.job_id, missed.enqueue_no + 1) == ELSEWHERE
    assert released == [ticket.job_id, missed.job_id]


def test_an_end_whose_reply_was_lost_is_billed_once(bench: Bench, store: Store, queued: Callable[..., Ticket]) -> None:
    ticket = queued()
    bench.slow.loses_reply = True
    assert bench.start(ticket).result(DEADLINE_S) == ELSEWHERE, "the second write finds the claim gone"
    assert (bills(store), job(store, ticket).state) == (["compute"], JobState.SUCCEEDED)


def test_a_job_whose_claim_is_unknown_to_its_worker_is_given_up(
    bench: Bench, store: Store, settings: Settings, queued: Callable[..., Ticket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.running.execute.NOT_READY_HOLD_S", 0.01)
    ticket, bench.slow.loses_claim = queued(), True
    assert bench.start(ticket).result(DEADLINE_S) == Outcome(JobState.QUEUED, "store_unavailable")
    assert (job(store, ticket).state, bench.heard.places, bills(store)) == (JobState.RUNNING, [], [])

    lease = Lease(bench.execute.state, store, bench.engine, LeaseTimes(settings.lease_s, 0.02), lambda: None)
    lease.begin()
    until(lambda: _orphans(store) == [ticket.job_id], "rescue takes it back", DEADLINE_S)
    lease.end()


def _orphans(store: Store) -> list[UUID]:
    with store.begin() as db:
        return [row.id for row in jobs.orphans(db)]


def test_an_end_is_written_again_after_an_outage(bench: Bench, store: Store, queued: Callable[..., Ticket]) -> None:
    bench.slow.away = 2
    assert bench.start(queued()).result(DEADLINE_S) == SUCCEEDED
    assert (bench.slow.away, bills(store)) == (0, ["compute"])


@pytest.mark.parametrize("is_stopping", [False, True])
def test_an_end_is_dropped_after_a_long_outage_or_when_the_worker_stops(
    bench: Bench,
    queued: Callable[..., Ticket],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    is_stopping: bool,
) -> None:
    monkeypatch.setattr("workers.running.execute.REWRITE_FOR_S", 600 if is_stopping else -1)
    bench.slow.away = 10_000
    ending = bench.start(queued())
    if is_stopping:
        assert bench.slow.asked.wait(DEADLINE_S)
        bench.execute.close()
    assert ending.result(DEADLINE_S) == ELSEWHERE
    assert "result_dropped" in caplog.messages
    assert bench.heard.announced == []


def test_a_worker_that_stops_writes_the_last_ends(bench: Bench, store: Store, queued: Callable[..., Ticket]) -> None:
    endings = bench.start_with_held_end(*(queued() for _ in range(3)))
    with ThreadPoolExecutor(1) as other:
        closing = other.submit(bench.execute.close)
        bench.slow.open.set()
        closing.result(DEADLINE_S)
    assert [each.result(DEADLINE_S) for each in endings] == [SUCCEEDED] * 3
    assert bills(store) == ["compute"] * 3


def test_a_locked_row_holds_up_the_end_of_its_own_job_alone(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    tickets = [queued() for _ in range(3)]
    _, locked, other = tickets
    endings = bench.start_with_held_end(*tickets)
    with store.begin() as db:
        db.execute(sa.text("SELECT FROM jobs WHERE id = :id FOR UPDATE"), {"id": locked.job_id})
        bench.slow.open.set()
        until(lambda: job(store, other).state is JobState.SUCCEEDED, "the other job has ended", DEADLINE_S)
        assert job(store, locked).state is JobState.RUNNING
    assert [each.result(DEADLINE_S) for each in endings] == [SUCCEEDED] * 3
    assert (bills(store), job(store, locked).state) == (["compute"] * 3, JobState.SUCCEEDED)


@pytest.mark.parametrize("large", [{"others": (Choice("Another.", "stop"),)}, {"text": LONG}, {"reasoning": LONG}])
def test_a_large_end_shares_no_statement(
    bench: Bench, store: Store, queued: Callable[..., Ticket], monkeypatch: pytest.MonkeyPatch, large: dict[str, Any]
) -> None:
    answer = bench.engine.generate

    def generate(request: GenerationRequest, on_delta: OnDelta | None = None) -> Generation:
        return replace(answer(request, on_delta), **large)

    monkeypatch.setattr(bench.engine, "generate", generate)
    monkeypatch.setattr(bench.execute._successes, "call", lambda *_: pytest.fail("it is written together"))
    assert bench.start(queued()).result(DEADLINE_S) == SUCCEEDED
    assert bills(store) == ["compute"]


def test_a_locked_row_keeps_no_other_job_from_its_claim(
    bench: Bench, store: Store, queued: Callable[..., Ticket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.running.execute.NOT_READY_HOLD_S", 0.01)
    locked, other = queued(), queued()
    with store.begin() as db:
        db.execute(sa.text("SELECT FROM jobs WHERE id = :id FOR UPDATE"), {"id": locked.job_id})
        endings = [bench.start(each) for each in (locked, other)]
        assert endings[1].result(DEADLINE_S) == SUCCEEDED
        assert endings[0].result(DEADLINE_S) == Outcome(JobState.QUEUED, "store_unavailable")
    assert job(store, locked).state is JobState.QUEUED


def test_a_job_with_a_webhook_ends_with_its_delivery(bench: Bench, store: Store, queued: Callable[..., Ticket]) -> None:
    for ticket in (queued(stream=True), queued(webhook_url="https://example.com/hook")):
        assert bench.start(ticket).result(DEADLINE_S) == SUCCEEDED
        assert job(store, ticket).state is JobState.SUCCEEDED
    with store.begin() as db:
        assert db.execute(sa.text("SELECT job_id, event FROM deliveries")).all() == [
            (ticket.job_id, "response.completed")
        ]


def test_an_end_that_postgres_refuses_fails_alone(
    bench: Bench,
    store: Store,
    queued: Callable[..., Ticket],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tickets = [queued() for _ in range(8)]
    bad, answer = tickets[3], bench.engine.generate

    def generate(request: GenerationRequest, on_delta: OnDelta | None = None) -> Generation:
        given = answer(request, on_delta)
        # More cached than there were.
        is_bad = request.request_id.startswith(bad.job_id.hex)
        return Generation(ANSWER, Usage(1, 1, cached_tokens=2), "stop", "quick-model") if is_bad else given

    monkeypatch.setattr(bench.engine, "generate", generate)
    outcomes = [each.result(DEADLINE_S) for each in [bench.start(ticket) for ticket in tickets]]
    assert outcomes == [ELSEWHERE if each is bad else SUCCEEDED for each in tickets]
    [refused] = [vars(record) for record in caplog.records if record.message == "end_not_written"]
    assert refused["job_id"] == show_id(bad.job_id)
    assert isinstance(refused["exc_info"][1], DBAPIError)


def test_a_message_that_is_there_twice_is_run_once(bench: Bench, store: Store, queued: Callable[..., Ticket]) -> None:
    tickets = [queued() for _ in range(8)]
    outcomes = [each.result(DEADLINE_S) for each in [bench.start(ticket) for ticket in tickets * 3]]
    assert (outcomes.count(SUCCEEDED), outcomes.count(ELSEWHERE)) == (8, 16)
    assert bills(store) == ["compute"] * 8


def test_of_two_workers_at_once_each_job_is_one_s(
    bench: Bench, bare_worker: Make, store: Store, queued: Callable[..., Ticket]
) -> None:
    other = bare_worker(QuickEngine(), Heard())
    tickets = [queued() for _ in range(32)]
    with ThreadPoolExecutor(THREADS) as threads:
        there = [threads.submit(other.run, each.job_id, each.enqueue_no) for each in tickets]
        here = [bench.start(each) for each in tickets]
        pairs = [{one.result(DEADLINE_S), two.result(DEADLINE_S)} for one, two in zip(here, there, strict=True)]
    assert pairs == [{SUCCEEDED, ELSEWHERE}] * 32
    assert bills(store) == ["compute"] * 32
