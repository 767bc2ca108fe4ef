"""Claimed jobs whose prompts this release does not read: left to a newer worker uncounted, or failed honestly."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy import Row

from headrace.domain.attempts import Outcome
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.store import Store, jobs
from headrace.store.fleet import workers
from headrace.tables import jobs as jobs_table
from tests.integration.workers.conftest import Make
from tests.integration.workers.running.test_execute import Heard, ScriptedEngine
from workers.running.execute import Execute

Query = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def worker(bare_worker: Make, heard: Heard) -> Execute:
    return bare_worker(ScriptedEngine(), heard)


@pytest.fixture
def written(queued: Callable[..., Ticket], query: Query) -> Callable[..., Ticket]:
    """Inserts a job whose stored sampling has these fields, too."""

    def insert(**fields: Any) -> Ticket:
        ticket = queued(webhook_url="https://receiver.example")
        more = "UPDATE job_texts SET sampling = sampling || CAST(:more AS jsonb) WHERE job_id = :id"
        query(more, more=json.dumps(fields), id=ticket.job_id)
        return ticket

    return insert


def row_of(store: Store, job_id: UUID) -> Row[Any]:
    with store.begin() as db:
        return db.execute(sa.select(jobs_table).where(jobs_table.c.id == job_id)).one()


def due(store: Store, query: Query) -> list[Ticket]:
    """The jobs that `publish_due` would queue once their pauses are over."""
    query("UPDATE jobs SET not_before = now() WHERE state = 'waiting'")
    with store.begin() as db:
        return jobs.enqueue_due(db)


def register(store: Store, payload_version: int, pool: str = "chat") -> UUID:
    worker = WorkerInfo(new_id(), "gpu@new", "host", pool, "simulator", "m", 4, payload_version=payload_version)
    with store.begin() as db:
        workers.register(db, worker, 30)
    return worker.id


def test_an_unknown_field_that_needs_no_version_changes_nothing(
    worker: Execute, written: Callable[..., Ticket], store: Store
) -> None:
    ticket = written(later={"x": 1})

    worker.run(ticket.job_id, 1)

    assert (row_of(store, ticket.job_id).state, row_of(store, ticket.job_id).attempt) == ("succeeded", 1)


def test_a_job_of_a_newer_release_is_handed_back_uncounted(
    worker: Execute, written: Callable[..., Ticket], store: Store, query: Query, heard: Heard, caplog: Any
) -> None:
    ticket = written(version=2, style="terse")

    outcome = worker.run(ticket.job_id, 1)

    assert outcome == Outcome(JobState.WAITING, "payload_too_new")
    row = row_of(store, ticket.job_id)
    assert (row.state, row.attempt, row.started_at, row.needs_version) == ("waiting", 0, None, 2)
    assert query("SELECT count(*) FROM attempts UNION ALL SELECT count(*) FROM ledger") == [(0,), (0,)]
    assert heard.places == [(ticket.job_id, 1)], "its place in the queue is free"
    assert len(worker.state.attempts) == 0
    assert worker.state.unread.snapshot() == {("payload_too_new",): 1}
    [line] = [record for record in caplog.records if record.message == "payload_not_read"]
    assert "version 2" in line.error


def test_it_stays_in_postgres_until_a_worker_that_reads_it_is_alive(
    worker: Execute, written: Callable[..., Ticket], store: Store, query: Query
) -> None:
    """So that workers that are too old do not take it again and again."""
    ticket = written(version=2)
    worker.run(ticket.job_id, 1)

    assert due(store, query) == []
    other_pool = register(store, 2, "overflow")
    assert due(store, query) == []
    newer = register(store, 2)
    assert [each.job_id for each in due(store, query)] == [ticket.job_id]

    # It meets the old worker again: until there is none, each time costs a longer pause.
    worker.run(ticket.job_id, 2)
    assert query("SELECT not_before - now() > interval '1 s' FROM jobs") == [(True,)]
    with store.begin() as db:
        workers.retire(db, newer)
    assert (due(store, query), other_pool) == ([], other_pool)


def test_it_expires_in_time_and_costs_nothing_if_no_worker_ever_reads_it(
    worker: Execute, written: Callable[..., Ticket], store: Store, age: Callable[[UUID, timedelta], None]
) -> None:
    ticket = written(version=2)
    worker.run(ticket.job_id, 1)
    age(ticket.job_id, timedelta(seconds=31))

    with store.begin() as db:
        jobs.expire(db, [row.id for row in jobs.late(db)])

    row = row_of(store, ticket.job_id)
    assert (row.state, row.error_code, row.attempt, row.usd) == ("expired", "expired", 0, 0)


def test_after_a_counted_attempt_it_waits_for_a_newer_worker_for_a_bounded_time(
    worker: Execute, written: Callable[..., Ticket], store: Store, query: Query, age: Callable[[UUID, timedelta], None]
) -> None:
    """Its `start_by` no longer bounds the wait."""
    ticket = written(version=2)
    query("UPDATE jobs SET attempt = 1, started_at = now()")
    age(ticket.job_id, timedelta(seconds=60))
    worker.run(ticket.job_id, 1)
    row = row_of(store, ticket.job_id)
    assert (row.state, row.attempt) == ("waiting", 1)
    assert row.started_at is not None

    register(store, 2)
    [again] = due(store, query)
    age(ticket.job_id, timedelta(minutes=11))
    assert worker.run(ticket.job_id, again.enqueue_no) == Outcome(JobState.FAILED, "payload_too_new")
    assert row_of(store, ticket.job_id).error_code == "payload_too_new"


def test_a_malformed_prompt_fails_its_job_with_the_reason_and_at_once(
    worker: Execute, written: Callable[..., Ticket], store: Store, query: Query, heard: Heard
) -> None:
    """Not after three attempts, as `worker_lost`."""
    ticket = written()
    query('UPDATE job_texts SET messages = \'[{"role": "user", "content": 5}]\'')

    assert worker.run(ticket.job_id, 1) == Outcome(JobState.FAILED, "payload_unreadable")

    row = row_of(store, ticket.job_id)
    assert (row.state, row.error_code, row.attempt, row.usd) == ("failed", "payload_unreadable", 1, 0)
    assert "messages are malformed" in row.error_message
    assert query("SELECT kind, usd FROM ledger") == [("waste", 0)]
    assert query("SELECT event FROM deliveries") == [("response.failed",)]
    assert heard.announced == heard.rung_for == [ticket.job_id]


def test_a_defect_in_a_worker_that_lives_fails_the_job_by_its_own_name_after_the_usual_attempts(
    bare_worker: Make, written: Callable[..., Ticket], store: Store, query: Query, heard: Heard
) -> None:
    """Such as parameters that are malformed in a way that only the engine meets. Not as `worker_lost`."""
    worker = bare_worker(ScriptedEngine(error=TypeError("temperature")), heard)
    ticket = written(temperature="hot")

    assert worker.run(ticket.job_id, 1) == Outcome(JobState.WAITING, "internal_error")
    [again] = due(store, query)
    assert worker.run(ticket.job_id, again.enqueue_no) == Outcome(JobState.FAILED, "internal_error")

    row = row_of(store, ticket.job_id)
    assert (row.state, row.error_code, row.attempt, row.usd) == ("failed", "internal_error", 2, 0)
    assert query("SELECT count(*) FROM attempts WHERE ended_at IS NULL") == [(0,)]
    assert len(worker.state.attempts) == 0
