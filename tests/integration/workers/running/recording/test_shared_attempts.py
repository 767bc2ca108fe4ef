"""Threads of one worker that claim and end jobs at once, on a real Postgres."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from headrace.config import Settings
from headrace.connections import postgres
from headrace.domain.attempts import AttemptEnd, Claim, Usage
from headrace.domain.choices import Choice
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.domain.limits.budgets import Cost
from headrace.domain.logprobs import alternative
from headrace.domain.prompts.tools import ToolCall
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.errors import PayloadUnreadable, StoreBusy
from headrace.store import Store, jobs
from headrace.store.fleet import workers
from headrace.tables import ledger
from workers.running.recording.commits import ON_DISK
from workers.running.recording.shared_attempts import ALONE_CHARS, SharedAttempts

THREADS = 16
LONG = "a" * (ALONE_CHARS + 1)
DONE = AttemptEnd("succeeded", 1.5, Cost(Decimal("0.01"), "v1"), "compute", Usage(9, 5), "An answer.")


@pytest.fixture
def shared(store: Store) -> SharedAttempts:
    return SharedAttempts(store, add_worker(store), "simulator")


Run = tuple[str, Mapping[str, Any]]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The statements that run by themselves: SQL and parameters."""
    run, told = Store.run, list[Run]()

    def note(store: Store, sql: str, parameters: Mapping[str, Any]) -> Sequence[Any]:
        told.append((sql, parameters))
        return run(store, sql, parameters)

    monkeypatch.setattr(Store, "run", note)
    return told


def add_worker(store: Store) -> UUID:
    info = WorkerInfo(new_id(), "gpu@test", "host", "chat", "simulator", "test-model", THREADS)
    with store.begin() as db:
        workers.register(db, info, 60)
    return info.id


def claim_all(shared: SharedAttempts, tickets: list[Ticket]) -> list[Claim | None]:
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(lambda each: claimed(shared, each), tickets))


def claimed(shared: SharedAttempts, ticket: Ticket) -> Claim | None:
    """The ticket's claim once it is on disk."""
    found = shared.claim(ticket.job_id, ticket.enqueue_no)
    if found is None:
        return None
    found.commit.wait()
    return found.claim


@pytest.mark.parametrize(("lull_s", "is_early"), [(0.0, True), (math.inf, False)])
def test_only_a_claim_that_comes_alone_comes_before_its_commit(
    shared: SharedAttempts,
    queued: Callable[..., Ticket],
    monkeypatch: pytest.MonkeyPatch,
    *,
    lull_s: float,
    is_early: bool,
) -> None:
    monkeypatch.setattr("workers.running.recording.shared_attempts.LULL_S", lull_s)
    ticket = queued()
    shared.ahead.begin()
    try:
        shared.ahead.expect({ticket.job_id: ticket.enqueue_no})
        found = shared.claim(ticket.job_id, ticket.enqueue_no)
        assert found is not None
        found.commit.wait()
    finally:
        shared.ahead.end()

    assert found.claim.job_id == ticket.job_id
    assert (found.commit is not ON_DISK) == is_early


def test_jobs_that_come_together_are_claimed_and_ended_in_fewer_statements(
    store: Store, runs: list[Run], shared: SharedAttempts, queued: Callable[..., Ticket]
) -> None:
    tickets = [queued() for _ in range(200)]
    runs.clear()

    claims = [each for each in claim_all(shared, tickets) if each]
    with ThreadPoolExecutor(THREADS) as threads:
        ended = list(threads.map(lambda each: shared.finish(each, JobState.SUCCEEDED, DONE), claims))

    assert [each.job_id for each in claims] == [each.job_id for each in tickets]
    assert all(ended)
    assert 0 < len(runs) < 200
    with store.begin() as db:
        assert {jobs.find(db, each.app_id, each.job_id).state for each in tickets} == {"succeeded"}
        assert db.scalar(sa.select(sa.func.count(ledger.c.job_id.distinct()))) == 200


def test_a_locked_row_keeps_no_other_job_from_its_claim(
    store: Store, settings: Settings, queued: Callable[..., Ticket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.connections.LOCK_TIMEOUT_MS", 100)
    hasty = Store(postgres(settings))
    shared = SharedAttempts(hasty, add_worker(store), "simulator")
    others = [queued() for _ in range(4)]
    locked = others.pop(1)
    shared.ahead.begin()
    try:
        with store.begin() as db:
            db.execute(sa.text("SELECT FROM jobs WHERE id = :id FOR UPDATE"), {"id": locked.job_id})
            shared.ahead.expect({each.job_id: each.enqueue_no for each in (locked, *others)})
            assert [claim.job_id for each in others if (claim := claimed(shared, each))] == [x.job_id for x in others]
            with pytest.raises(StoreBusy):
                claimed(shared, locked)
    finally:
        shared.ahead.end()
        hasty.close()


def test_jobs_that_are_expected_are_claimed_in_one_statement(
    runs: list[Run], shared: SharedAttempts, queued: Callable[..., Ticket]
) -> None:
    tickets = [queued() for _ in range(THREADS)]
    gone = UUID(int=tickets[0].job_id.int + 1)
    runs.clear()
    shared.ahead.begin()

    shared.ahead.expect({**{each.job_id: each.enqueue_no for each in tickets}, gone: 1})
    claims = claim_all(shared, tickets)

    assert [each and each.job_id for each in claims] == [each.job_id for each in tickets]
    assert shared.claim(gone, 1) is None, "it is no queued job"
    assert len([sql for sql, _ in runs if "INSERT INTO attempts" in sql]) == 1
    assert claim_all(shared, tickets) == [None] * THREADS, "each is claimed once"
    shared.ahead.end()


@pytest.mark.parametrize(
    "large",
    [
        {"logprobs": [{**alternative("An", -0.5), "top_logprobs": []}]},
        {"text": LONG},
        {"reasoning": LONG},
        {"tool_calls": (ToolCall("call_1", "write", LONG),)},
        {"others": (Choice(LONG, "stop"),)},
    ],
    ids=["logprobs", "text", "reasoning", "call", "several answers"],
)
def test_a_large_end_shares_no_statement(
    runs: list[Run], shared: SharedAttempts, queued: Callable[..., Ticket], large: dict[str, Any]
) -> None:
    claims = [each for each in claim_all(shared, [queued() for _ in range(30)]) if each]
    measured = replace(DONE, **large)
    runs.clear()

    with ThreadPoolExecutor(THREADS) as threads:
        ended = list(threads.map(lambda each: shared.finish(each, JobState.SUCCEEDED, measured), claims))

    assert all(ended)
    assert [len(json.loads(parameters["given"])) for _, parameters in runs] == [1] * 30


def test_a_message_that_is_there_twice_is_claimed_once(shared: SharedAttempts, queued: Callable[..., Ticket]) -> None:
    tickets = [queued() for _ in range(8)]
    claims = claim_all(shared, tickets * 4)
    assert sorted(each.job_id for each in claims if each) == sorted(each.job_id for each in tickets)


def test_of_two_workers_at_once_each_job_is_one_s(
    store: Store, shared: SharedAttempts, queued: Callable[..., Ticket]
) -> None:
    other = SharedAttempts(store, add_worker(store), "simulator")
    tickets = [queued() for _ in range(64)]
    with ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda each: claim_all(each, tickets), (shared, other)))
    assert all((one is None) != (two is None) for one, two in zip(*both, strict=True))


def test_an_end_that_postgres_refuses_fails_alone(
    store: Store, shared: SharedAttempts, queued: Callable[..., Ticket]
) -> None:
    claims = [each for each in claim_all(shared, [queued() for _ in range(THREADS)]) if each]
    # More cached than there were.
    bad = replace(DONE, usage=Usage(1, 1, cached_tokens=2))

    def finish(claim: Claim) -> bool:
        return shared.finish(claim, JobState.SUCCEEDED, bad if claim is claims[3] else DONE)

    with ThreadPoolExecutor(THREADS) as threads:
        told = [threads.submit(finish, each) for each in claims]
    assert [isinstance(each.exception(), DBAPIError) for each in told] == [each is claims[3] for each in claims]
    with store.begin() as db:
        states = [jobs.find(db, each.app_id, each.job_id).state for each in claims]
    assert states == ["running" if each is claims[3] else "succeeded" for each in claims]


def test_what_cannot_be_read_costs_no_other_job_its_claim(
    store: Store, shared: SharedAttempts, queued: Callable[..., Ticket]
) -> None:
    tickets = [queued() for _ in range(THREADS)]
    with store.begin() as db:
        strange = sa.text('UPDATE job_texts SET messages = \'[{"of": "tomorrow"}]\' WHERE job_id = :id')
        db.execute(strange, {"id": tickets[3].job_id})
    claims = [each for each in claim_all(shared, tickets) if each]
    unread = [isinstance(each.unread, PayloadUnreadable) for each in claims]
    assert unread == [each is tickets[3] for each in tickets]
