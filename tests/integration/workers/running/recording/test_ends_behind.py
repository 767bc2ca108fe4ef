"""Jobs whose threads go on before their ends are on disk, on a real Postgres: nothing leaves the worker before."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.config import Settings
from headrace.connections import postgres
from headrace.domain.attempts import Outcome, Usage
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.errors import StoreUnavailable
from headrace.store import Store
from tests.integration.workers.running.conftest import Make
from tests.integration.workers.running.recording.test_early_claims import DEADLINE_S, Heard, QuickEngine, bills, job
from tests.waiting import until
from workers.engines.base import Generation
from workers.running.bill import Answered
from workers.running.execute import Execute
from workers.running.recording.commits import Commit
from workers.running.recording.records import AttemptRecords


class SlowToWrite(Store):
    """Lets ends through when the test does, or loses their replies."""

    def __init__(self, engine: sa.Engine) -> None:
        super().__init__(engine)
        self.open = threading.Event()
        self.open.set()
        self.loses_reply = False

    def run(self, sql: str, parameters: Mapping[str, Any]) -> Sequence[Any]:
        if "INSERT INTO ledger" not in sql:
            return super().run(sql, parameters)
        assert self.open.wait(DEADLINE_S)
        loses_reply, self.loses_reply = self.loses_reply, False
        rows = super().run(sql, parameters)
        if loses_reply:
            raise StoreUnavailable("Postgres was gone after the commit.")
        return rows


@dataclass
class Bench:
    """A worker without Celery, whose ends go through `slow`."""

    execute: Execute
    heard: Heard
    slow: SlowToWrite


@pytest.fixture
def bench(bare_worker: Make, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("workers.running.recording.ends_behind.REWRITE_AFTER_S", 0.01)
    monkeypatch.setattr("workers.running.recording.ends_behind.LOCKED_FOR_S", 0.01)
    monkeypatch.setattr("headrace.connections.LOCK_TIMEOUT_MS", 100)
    engine, heard = QuickEngine(), Heard()
    slow = SlowToWrite(postgres(settings))
    execute, _ = bare_worker(engine, heard, slow)
    execute.records.behind.begin()
    yield Bench(execute, heard, slow)
    slow.open.set()
    execute.records.behind.end()
    slow.close()


def ended(commit: Outcome | Commit | None) -> bool:
    """Whether the end is on disk, once that is known."""
    assert isinstance(commit, Commit)
    try:
        commit.wait()
    except StoreUnavailable:
        return False
    return True


def run_with_held_end(bench: Bench, ticket: Ticket) -> Outcome | Commit | None:
    """Run the job; its end waits until the test opens `slow`."""
    claim = bench.execute.records.claim

    def claim_then_hold(*asked: object) -> object:
        claimed = claim(*asked)  # type: ignore[arg-type]
        bench.slow.open.clear()
        return claimed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AttemptRecords, "claim", lambda _self, *asked: claim_then_hold(*asked))
        return bench.execute.run(ticket.job_id, ticket.enqueue_no)


def test_a_thread_goes_on_before_the_end_is_on_disk_and_nothing_leaves_the_worker_before(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket = queued()
    commit = run_with_held_end(bench, ticket)
    assert isinstance(commit, Commit)
    assert (bench.heard.announced, bills(store), job(store, ticket).state) == ([], [], JobState.RUNNING)
    assert not bench.execute.state.attempts.wait_until_idle(0.1), "a worker that stops waits for the end"

    bench.slow.open.set()

    assert ended(commit)
    assert bench.execute.state.attempts.wait_until_idle(DEADLINE_S)
    assert (bench.heard.announced, bills(store)) == ([ticket.job_id], ["compute"])
    assert (job(store, ticket).state, job(store, ticket).answer) == (JobState.SUCCEEDED, "An answer.")


def test_an_end_whose_claim_was_taken_away_is_not_written(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket = queued()
    commit = run_with_held_end(bench, ticket)
    with store.begin() as db:
        db.execute(sa.text("UPDATE jobs SET enqueue_no = enqueue_no + 1"))
    bench.slow.open.set()
    assert not ended(commit)
    assert bench.execute.state.attempts.wait_until_idle(DEADLINE_S)
    assert (bench.heard.announced, bills(store), job(store, ticket).state) == ([], [], JobState.RUNNING)


def test_an_end_whose_reply_was_lost_is_billed_once(bench: Bench, store: Store, queued: Callable[..., Ticket]) -> None:
    ticket = queued()
    commit = run_with_held_end(bench, ticket)
    bench.slow.loses_reply = True
    bench.slow.open.set()
    assert not ended(commit), "the second write finds the claim gone"
    assert (bills(store), job(store, ticket).state) == (["compute"], JobState.SUCCEEDED)


def end_together(bench: Bench, tickets: Sequence[Ticket]) -> list[Outcome | Commit | None]:
    """Let these jobs succeed while Postgres is slow, so that all but the first share a statement."""
    records, bill = bench.execute.records, bench.execute.bill
    claims = [claimed.claim for each in tickets if (claimed := records.claim(each.job_id, each.enqueue_no))]
    answer = Generation("An answer.", Usage(8, 3), "stop", "quick-model")
    bench.slow.open.clear()
    return [records.succeed(claim, bill.of(Answered(claim, answer, 0.1), "succeeded")) for claim in claims]


def test_a_locked_row_holds_up_the_end_of_its_own_job_alone(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    tickets = [queued() for _ in range(3)]
    _, locked, other = tickets
    commits = end_together(bench, tickets)
    with store.begin() as db:
        db.execute(sa.text("SELECT FROM jobs WHERE id = :id FOR UPDATE"), {"id": locked.job_id})
        bench.slow.open.set()
        until(lambda: job(store, other).state is JobState.SUCCEEDED, "the other job has ended", DEADLINE_S)
        assert job(store, locked).state is JobState.RUNNING
    assert [ended(commit) for commit in commits] == [True] * 3
    assert (bills(store), job(store, locked).state) == (["compute"] * 3, JobState.SUCCEEDED)


def test_a_job_with_a_webhook_or_a_stream_ends_before_its_thread_goes_on(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    for ticket in (queued(stream=True), queued(webhook_url="https://example.com/hook")):
        assert bench.execute.run(ticket.job_id, ticket.enqueue_no) == Outcome(JobState.SUCCEEDED)
        assert job(store, ticket).state is JobState.SUCCEEDED
