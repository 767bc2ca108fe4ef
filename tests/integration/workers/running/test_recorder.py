"""Threads of one worker that claim and end jobs at once, on a real Postgres."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from redis import Redis
from sqlalchemy.exc import DBAPIError

from headrace.broker.streams import Streams
from headrace.config import Settings
from headrace.connections import postgres
from headrace.domain.answers import Choice, alternative
from headrace.domain.attempts import AttemptEnd, Claim, Usage
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id, show_id
from headrace.domain.limits import Cost
from headrace.domain.prompts.tools import ToolCall
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.errors import PayloadUnreadable, StoreBusy
from headrace.store import Store, jobs
from headrace.store.fleet import workers
from headrace.tables import ledger
from tests.integration.workers.running.test_early_claims import Heard
from workers.running.publisher import Publisher
from workers.running.recorder import ALONE_CHARS, ELSEWHERE, Ending, Recorder

THREADS = 16
LONG = "a" * (ALONE_CHARS + 1)
DONE = AttemptEnd("succeeded", 1.5, Cost(Decimal("0.01"), "v1"), "compute", Usage(9, 5), "An answer.")


@pytest.fixture
def make(redis: Redis) -> Iterator[Callable[[Store, UUID], Recorder]]:
    """Makes the recorder of this worker."""
    with ExitStack() as made:

        def make(store: Store, worker_id: UUID) -> Recorder:
            recorder = Recorder(store, worker_id, "simulator", Heard(), Publisher(Streams(redis)))
            made.callback(recorder.close)
            return recorder

        yield make


@pytest.fixture
def shared(store: Store, make: Callable[[Store, UUID], Recorder]) -> Recorder:
    return make(store, add_worker(store))


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


def claim_all(shared: Recorder, tickets: list[Ticket]) -> list[Claim | None]:
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(lambda each: claimed(shared, each), tickets))


def claimed(shared: Recorder, ticket: Ticket) -> Claim | None:
    """The ticket's claim once it is on disk."""
    found = shared.claim(ticket.job_id, ticket.enqueue_no)
    if found is None:
        return None
    found.on_disk.result(20)
    return found.claim


@pytest.mark.parametrize(("lull_s", "is_early"), [(0.0, True), (math.inf, False)])
def test_only_a_claim_that_comes_alone_comes_before_its_commit(
    runs: list[Run],
    shared: Recorder,
    queued: Callable[..., Ticket],
    monkeypatch: pytest.MonkeyPatch,
    *,
    lull_s: float,
    is_early: bool,
) -> None:
    monkeypatch.setattr("workers.running.recorder.LULL_S", lull_s)
    ticket = queued()
    runs.clear()
    shared.expect({ticket.job_id: ticket.enqueue_no})
    claim = claimed(shared, ticket)

    assert claim is not None
    assert claim.job_id == ticket.job_id
    assert [parameters.get("is_before_disk") for _, parameters in runs] == ([True, None] if is_early else [False])


def test_jobs_that_come_together_are_claimed_and_ended_in_fewer_statements(
    store: Store, runs: list[Run], shared: Recorder, queued: Callable[..., Ticket]
) -> None:
    tickets = [queued() for _ in range(200)]
    runs.clear()

    claims = [each for each in claim_all(shared, tickets) if each]
    with ThreadPoolExecutor(THREADS) as threads:
        ended = list(threads.map(lambda each: shared.finish(each, JobState.SUCCEEDED, DONE).result(20), claims))

    assert [each.job_id for each in claims] == [each.job_id for each in tickets]
    assert {outcome.state for outcome in ended} == {JobState.SUCCEEDED}
    assert 0 < len(runs) < 200
    with store.begin() as db:
        assert {jobs.find(db, each.app_id, each.job_id).state for each in tickets} == {"succeeded"}
        assert db.scalar(sa.select(sa.func.count(ledger.c.job_id.distinct()))) == 200


def test_a_locked_row_keeps_no_other_job_from_its_claim(
    store: Store,
    settings: Settings,
    queued: Callable[..., Ticket],
    make: Callable[[Store, UUID], Recorder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headrace.connections.LOCK_TIMEOUT_MS", 100)
    hasty = Store(postgres(settings))
    shared = make(hasty, add_worker(store))
    others = [queued() for _ in range(4)]
    locked = others.pop(1)
    try:
        with store.begin() as db:
            db.execute(sa.text("SELECT FROM jobs WHERE id = :id FOR UPDATE"), {"id": locked.job_id})
            shared.expect({each.job_id: each.enqueue_no for each in (locked, *others)})
            assert [claim.job_id for each in others if (claim := claimed(shared, each))] == [x.job_id for x in others]
            with pytest.raises(StoreBusy):
                claimed(shared, locked)
    finally:
        shared.close()
        hasty.close()


def test_jobs_that_are_expected_are_claimed_in_one_statement(
    runs: list[Run], shared: Recorder, queued: Callable[..., Ticket]
) -> None:
    tickets = [queued() for _ in range(THREADS)]
    gone = UUID(int=tickets[0].job_id.int + 1)
    runs.clear()

    shared.expect({**{each.job_id: each.enqueue_no for each in tickets}, gone: 1})
    claims = claim_all(shared, tickets)

    assert [each and each.job_id for each in claims] == [each.job_id for each in tickets]
    assert shared.claim(gone, 1) is None, "it is no queued job"
    assert len([sql for sql, _ in runs if "INSERT INTO attempts" in sql]) == 1
    assert claim_all(shared, tickets) == [None] * THREADS, "each is claimed once"


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
    runs: list[Run], shared: Recorder, queued: Callable[..., Ticket], large: dict[str, Any]
) -> None:
    claims = [each for each in claim_all(shared, [queued() for _ in range(30)]) if each]
    measured = replace(DONE, **large)
    runs.clear()

    with ThreadPoolExecutor(THREADS) as threads:
        ended = list(threads.map(lambda each: shared.finish(each, JobState.SUCCEEDED, measured).result(20), claims))

    assert {outcome.state for outcome in ended} == {JobState.SUCCEEDED}
    assert [len(json.loads(parameters["given"])) for _, parameters in runs] == [1] * 30


def test_a_message_that_is_there_twice_is_claimed_once(shared: Recorder, queued: Callable[..., Ticket]) -> None:
    tickets = [queued() for _ in range(8)]
    claims = claim_all(shared, tickets * 4)
    assert sorted(each.job_id for each in claims if each) == sorted(each.job_id for each in tickets)


def test_of_two_workers_at_once_each_job_is_one_s(
    store: Store, shared: Recorder, queued: Callable[..., Ticket], make: Callable[[Store, UUID], Recorder]
) -> None:
    other = make(store, add_worker(store))
    tickets = [queued() for _ in range(64)]
    with ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda each: claim_all(each, tickets), (shared, other)))
    assert all((one is None) != (two is None) for one, two in zip(*both, strict=True))


def test_an_end_that_postgres_refuses_fails_alone(
    store: Store, shared: Recorder, queued: Callable[..., Ticket], caplog: pytest.LogCaptureFixture
) -> None:
    claims = [each for each in claim_all(shared, [queued() for _ in range(THREADS)]) if each]
    # More cached than there were.
    bad = replace(DONE, usage=Usage(1, 1, cached_tokens=2))

    def finish(claim: Claim) -> Ending:
        return shared.finish(claim, JobState.SUCCEEDED, bad if claim is claims[3] else DONE)

    with ThreadPoolExecutor(THREADS) as threads:
        outcomes = [each.result(20) for each in threads.map(finish, claims)]
    assert [outcome == ELSEWHERE for outcome in outcomes] == [each is claims[3] for each in claims]
    [refused] = [vars(record) for record in caplog.records if record.message == "end_not_written"]
    assert refused["job_id"] == show_id(claims[3].job_id)
    assert isinstance(refused["exc_info"][1], DBAPIError)
    with store.begin() as db:
        states = [jobs.find(db, each.app_id, each.job_id).state for each in claims]
    assert states == ["running" if each is claims[3] else "succeeded" for each in claims]


def test_what_cannot_be_read_costs_no_other_job_its_claim(
    store: Store, shared: Recorder, queued: Callable[..., Ticket]
) -> None:
    tickets = [queued() for _ in range(THREADS)]
    with store.begin() as db:
        strange = sa.text('UPDATE job_texts SET messages = \'[{"of": "tomorrow"}]\' WHERE job_id = :id')
        db.execute(strange, {"id": tickets[3].job_id})
    claims = [each for each in claim_all(shared, tickets) if each]
    unread = [isinstance(each.unread, PayloadUnreadable) for each in claims]
    assert unread == [each is tickets[3] for each in tickets]
