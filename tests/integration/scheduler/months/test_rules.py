"""What holds in one table holds over the bounds of months: one bill, one retry, one webhook, one key, no lost text."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError

from headrace.domain.attempts import AttemptEnd, Usage
from headrace.domain.deliveries import Terms
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.domain.jobs import Idempotency
from headrace.domain.limits import Cost
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.errors import NotFound
from headrace.store import Store, attempts, deliveries, jobs
from headrace.store.attempts import claim_of
from headrace.store.fleet import workers
from headrace.store.jobs import overview
from tests import one_attempt
from tests.integration.months_of_jobs import id_at

HOOK = "https://receiver.example/hook"
DONE = AttemptEnd("succeeded", 0.5, Cost(Decimal("0.001"), "v1"), "compute", Usage(8, 3), "Done.", "stop", "m")
TERMS = Terms(most=9, per_app=9, per_receiver=9, max_tries=9, lease_s=60)

Queued = Callable[..., Ticket]


@pytest.fixture(autouse=True)
def edge(make_until: Callable[[datetime], list[str]], first_until: datetime) -> datetime:
    """Where a month begins; several more follow."""
    make_until(first_until + timedelta(days=100))
    return first_until


@pytest.fixture
def end(store: Store) -> Callable[[Ticket, JobState], None]:
    """Lets a worker take a job and end it."""

    def run(ticket: Ticket, state: JobState = JobState.SUCCEEDED) -> None:
        worker = WorkerInfo(new_id(), "gpu@test", "host", "chat", "simulator", "m", 4)
        with store.begin() as db:
            workers.register(db, worker, 30)
        with store.autocommit() as db:
            [row] = attempts.claim_all(db, {ticket.job_id: ticket.enqueue_no}, worker.id, "simulator").values()
        with store.begin() as db:
            assert one_attempt.finish(db, claim_of(row), state, DONE)

    return run


def refused(store: Store, rule: str, sql: str, **given: Any) -> None:
    with pytest.raises(DatabaseError, match=rule), store.begin() as db:
        db.execute(sa.text(sql), given)


@pytest.mark.parametrize("days", [-1, 1, 40])
def test_a_job_lives_its_life_in_any_month(
    store: Store, edge: datetime, queued_in: Queued, end: Callable[..., None], query: Any, days: int
) -> None:
    ticket = queued_in(edge + timedelta(days=days), webhook_url=HOOK)
    end(ticket)
    with store.begin() as db:
        [delivery] = deliveries.pull(db, TERMS).deliveries
        deliveries.record_success(db, delivery, 204)
        found = jobs.find(db, ticket.app_id, ticket.job_id)
    assert (found.state, found.answer, found.price_version) == (JobState.SUCCEEDED, "Done.", "v1")
    assert query("SELECT state FROM deliveries") == [("delivered",)]
    for table in ("jobs", "job_texts", "attempts", "ledger", "deliveries"):
        home = f"{table}_{edge + timedelta(days=days):%Y_%m}"
        assert query(f"SELECT tableoid::regclass::text FROM {table}") == [(home,)]


@pytest.mark.parametrize("days", [-1, 1])
def test_a_job_has_one_bill_however_late_the_second_comes(
    store: Store, edge: datetime, queued_in: Queued, end: Callable[..., None], days: int
) -> None:
    ticket = queued_in(edge + timedelta(days=days))
    end(ticket)
    for kind in ("compute", "api", "cache"):
        refused(
            store,
            "duplicate key",
            "INSERT INTO ledger (at, kind, job_id, usd) VALUES (now() + interval '70 days', :kind, :id, 1)",
            kind=kind,
            id=ticket.job_id,
        )


@pytest.mark.parametrize("days", [-1, 1])
def test_a_job_has_one_webhook_for_its_end_in_whatever_month_it_is_written(
    store: Store, edge: datetime, queued_in: Queued, end: Callable[..., None], query: Any, days: int
) -> None:
    ticket = queued_in(edge + timedelta(days=days), webhook_url=HOOK)
    end(ticket)
    [(event,)] = query("SELECT event FROM deliveries")
    refused(
        store,
        "duplicate key",
        "INSERT INTO deliveries (id, job_id, app_id, event, url) VALUES (:id, :job, :app, :event, :url)",
        id=id_at(edge + timedelta(days=70)),
        job=ticket.job_id,
        app=ticket.app_id,
        event=event,
        url=HOOK,
    )


def retry_in(store: Store, job_id: UUID, at: datetime) -> None:
    """A retry as the code of any release writes it: it names the old job in `retry_of`, and no more."""
    columns = "app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested, background"
    more = "prompt_tokens, max_tokens, start_by"
    old = f"SELECT :new, id, {columns}, {more} FROM jobs WHERE id = :old"
    sql = f"INSERT INTO jobs (id, retry_of, {columns}, {more}) {old}"
    with store.begin() as db:
        db.execute(sa.text(sql), {"new": id_at(at), "old": job_id})


@pytest.mark.parametrize(("first", "second"), [(-1, 1), (1, -1), (1, 40), (1, 2)])
def test_a_job_is_retried_once_whatever_month_its_retries_are_of(
    store: Store, edge: datetime, queued_in: Queued, end: Callable[..., None], query: Any, first: int, second: int
) -> None:
    failed = queued_in(edge - timedelta(days=3))
    end(failed, JobState.FAILED)
    retry_in(store, failed.job_id, edge + timedelta(days=first))

    with pytest.raises(DatabaseError, match="pk_job_retries"):
        retry_in(store, failed.job_id, edge + timedelta(days=second))

    assert query("SELECT count(*) FROM jobs WHERE retry_of IS NOT NULL") == [(1,)]


def test_of_two_retries_at_once_in_two_months_one_is_refused(
    store: Store, edge: datetime, queued_in: Queued, end: Callable[..., None], query: Any
) -> None:
    failed = [queued_in(edge - timedelta(days=3)) for _ in range(10)]
    for ticket in failed:
        end(ticket, JobState.FAILED)

    def attack(days: int) -> int:
        done = 0
        for ticket in failed:
            try:
                retry_in(store, ticket.job_id, edge + timedelta(days=days))
                done += 1
            except DatabaseError:
                pass
        return done

    with ThreadPoolExecutor(2) as threads:
        assert sum(threads.map(attack, (-1, 1))) == len(failed)
    assert query("SELECT count(*), count(DISTINCT retry_of) FROM jobs WHERE retry_of IS NOT NULL") == [(10, 10)]


def test_an_operator_is_told_of_the_retry_in_another_month(
    store: Store, edge: datetime, queued_in: Queued, end: Callable[..., None]
) -> None:
    failed = queued_in(edge + timedelta(days=1))
    end(failed, JobState.FAILED)
    with store.begin() as db:
        [new] = overview.retry(db, [failed.job_id]).values()
    with store.begin() as db, pytest.raises(Exception, match=f"retried already, as 'job_{new.hex}'"):
        overview.retry(db, [failed.job_id])


def test_an_idempotency_key_stands_for_one_job_over_the_turn_of_a_month(
    edge: datetime, queued_in: Queued, query: Any
) -> None:
    key = Idempotency("once", b"hash")
    first = queued_in(edge - timedelta(seconds=1), idempotency=key)

    # A replay, which inserts nothing.
    with pytest.raises(NotFound):
        queued_in(edge + timedelta(seconds=1), idempotency=key)

    assert query("SELECT id FROM jobs") == [(first.job_id,)]


@pytest.mark.parametrize("table", ["job_texts", "attempts", "deliveries"])
@pytest.mark.parametrize("days", [-1, 1])
def test_rows_of_a_job_need_that_job_and_go_with_it(
    store: Store, edge: datetime, queued_in: Queued, end: Callable[..., None], query: Any, table: str, days: int
) -> None:
    at = edge + timedelta(days=days)
    ticket = queued_in(at, webhook_url=HOOK)
    end(ticket)
    others = [
        name
        for (name,) in query(
            "SELECT attname FROM pg_attribute WHERE attrelid = CAST(:of AS regclass)"
            " AND attnum > 0 AND NOT attisdropped AND attname <> 'job_id'",
            of=table,
        )
    ]
    values = ", ".join("gen_random_uuid()" if name == "id" else name for name in others)
    refused(
        store,
        "violates foreign key",
        f"INSERT INTO {table} (job_id, {', '.join(others)}) SELECT :nobody, {values} FROM {table}",
        nobody=id_at(at),
    )

    query("DELETE FROM jobs")

    assert query(f"SELECT count(*) FROM {table}") == [(0,)]


@pytest.mark.parametrize("change", ["UPDATE {} SET usd = 0", "DELETE FROM {}"])
def test_entries_are_immutable_in_each_month_also_for_one_who_names_its_table(
    store: Store, edge: datetime, queued_in: Queued, end: Callable[..., None], query: Any, change: str
) -> None:
    for days in (-1, 1, 40):
        end(queued_in(edge + timedelta(days=days)))
    query("INSERT INTO ledger (kind, usd) VALUES ('adjustment', -1)")
    filled = {name for (name,) in query("SELECT DISTINCT tableoid::regclass::text FROM ledger")}
    assert len(filled) == 4
    for table in ("ledger", *filled):
        refused(store, "immutable", change.format(table))
    assert query("SELECT count(*), sum(usd) FROM ledger") == [(4, Decimal("-0.997"))]


def test_entries_are_numbered_through_over_months(
    edge: datetime, queued_in: Queued, end: Callable[..., None], query: Any
) -> None:
    for days in (40, -1, 1):
        end(queued_in(edge + timedelta(days=days)))
    assert query("SELECT count(DISTINCT id), max(id) - min(id) FROM ledger") == [(3, 2)]
