"""Jobs whose threads go on before their ends are on disk, on a real Postgres: nothing leaves the worker before."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.config import Settings
from headrace.connections import postgres
from headrace.domain.attempts import Outcome, Usage
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.errors import StoreUnavailable
from headrace.store import Store, attempts
from tests.integration.workers.conftest import Make, job
from tests.integration.workers.running.test_early_claims import DEADLINE_S, Heard, QuickEngine, bills
from tests.waiting import until
from workers.engines.base import Generation
from workers.running.bill import Answered
from workers.running.execute import Execute
from workers.running.recorder import ELSEWHERE, Ending, Recorder


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
    monkeypatch.setattr("workers.running.recorder.REWRITE_AFTER_S", 0.01)
    monkeypatch.setattr("workers.running.recorder.LOCKED_FOR_S", 0.01)
    monkeypatch.setattr("headrace.connections.LOCK_TIMEOUT_MS", 100)
    engine, heard = QuickEngine(), Heard()
    slow = SlowToWrite(postgres(settings))
    execute = bare_worker(engine, heard, slow)
    yield Bench(execute, heard, slow)
    slow.open.set()
    execute.recorder.close()
    slow.close()


def run_with_held_end(bench: Bench, ticket: Ticket) -> Ending:
    """Run the job; its end waits until the test opens `slow`."""
    claim = bench.execute.recorder.claim

    def claim_then_hold(*asked: object) -> object:
        claimed = claim(*asked)  # type: ignore[arg-type]
        bench.slow.open.clear()
        return claimed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "claim", lambda _self, *asked: claim_then_hold(*asked))
        return bench.execute.run(ticket.job_id, ticket.enqueue_no)


def test_a_thread_goes_on_before_the_end_is_on_disk_and_nothing_leaves_the_worker_before(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket = queued()
    ending = run_with_held_end(bench, ticket)
    assert not ending.done()
    assert (bench.heard.announced, bills(store), job(store, ticket).state) == ([], [], JobState.RUNNING)
    assert not bench.execute.state.attempts.wait_until_idle(0.1), "a worker that stops waits for the end"

    bench.slow.open.set()

    assert ending.result(DEADLINE_S) == Outcome(JobState.SUCCEEDED)
    assert bench.execute.state.attempts.wait_until_idle(DEADLINE_S)
    assert (bench.heard.announced, bills(store)) == ([ticket.job_id], ["compute"])
    assert (job(store, ticket).state, job(store, ticket).answer) == (JobState.SUCCEEDED, "An answer.")


def test_an_end_whose_claim_was_taken_away_is_not_written(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket = queued()
    ending = run_with_held_end(bench, ticket)
    with store.begin() as db:
        db.execute(sa.text("UPDATE jobs SET enqueue_no = enqueue_no + 1"))
    bench.slow.open.set()
    assert ending.result(DEADLINE_S) == ELSEWHERE
    assert bench.execute.state.attempts.wait_until_idle(DEADLINE_S)
    assert (bench.heard.announced, bills(store), job(store, ticket).state) == ([], [], JobState.RUNNING)


def test_an_end_whose_reply_was_lost_is_billed_once(bench: Bench, store: Store, queued: Callable[..., Ticket]) -> None:
    ticket = queued()
    ending = run_with_held_end(bench, ticket)
    bench.slow.loses_reply = True
    bench.slow.open.set()
    assert ending.result(DEADLINE_S) == ELSEWHERE, "the second write finds the claim gone"
    assert (bills(store), job(store, ticket).state) == (["compute"], JobState.SUCCEEDED)


def end_together(bench: Bench, tickets: Sequence[Ticket]) -> list[Ending]:
    """Let these jobs succeed while Postgres is slow, so that all but the first share a statement."""
    recorder, bill = bench.execute.recorder, bench.execute.bill
    claims = [claimed.claim for each in tickets if (claimed := recorder.claim(each.job_id, each.enqueue_no))]
    answer = Generation("An answer.", Usage(8, 3), "stop", "quick-model")
    bench.slow.open.clear()
    return [
        recorder.finish(claim, JobState.SUCCEEDED, bill.of(Answered(claim, answer, 0.1), "succeeded"))
        for claim in claims
    ]


def test_a_locked_row_holds_up_the_end_of_its_own_job_alone(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    tickets = [queued() for _ in range(3)]
    _, locked, other = tickets
    endings = end_together(bench, tickets)
    with store.begin() as db:
        db.execute(sa.text("SELECT FROM jobs WHERE id = :id FOR UPDATE"), {"id": locked.job_id})
        bench.slow.open.set()
        until(lambda: job(store, other).state is JobState.SUCCEEDED, "the other job has ended", DEADLINE_S)
        assert job(store, locked).state is JobState.RUNNING
    assert [each.result(DEADLINE_S).state for each in endings] == [JobState.SUCCEEDED] * 3
    assert (bills(store), job(store, locked).state) == (["compute"] * 3, JobState.SUCCEEDED)


def test_a_job_with_a_webhook_or_a_stream_ends_behind_its_thread_too_with_its_delivery(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    for ticket in (queued(stream=True), queued(webhook_url="https://example.com/hook")):
        assert bench.execute.run(ticket.job_id, ticket.enqueue_no).result(DEADLINE_S) == Outcome(JobState.SUCCEEDED)
        assert job(store, ticket).state is JobState.SUCCEEDED
    with store.begin() as db:
        assert db.execute(sa.text("SELECT job_id, event FROM deliveries")).all() == [
            (ticket.job_id, "response.completed")
        ]


def test_jobs_with_and_without_a_webhook_that_end_together_share_a_transaction(
    bench: Bench, store: Store, queued: Callable[..., Ticket], monkeypatch: pytest.MonkeyPatch
) -> None:
    tickets = [queued(), *(queued(webhook_url=url) for url in (None, "https://example.com/hook", None))]
    endings = end_together(bench, tickets)
    finish, shares = attempts.finish_all, list[int]()

    def note(where: object, target: JobState, ends: Sequence[Any]) -> set[UUID]:
        shares.append(len(ends))
        return finish(where, target, ends)  # type: ignore[arg-type]

    monkeypatch.setattr("workers.running.recorder.attempts.finish_all", note)
    bench.slow.open.set()
    assert [each.result(DEADLINE_S).state for each in endings] == [JobState.SUCCEEDED] * 4
    assert shares in ([3], [4]), "the first one may have been on its way"
    with store.begin() as db:
        assert db.scalars(sa.text("SELECT job_id FROM deliveries")).all() == [tickets[2].job_id]
    assert bills(store) == ["compute"] * 4
