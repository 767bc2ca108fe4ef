from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from headrace.errors import IdempotencyKeyReused
from headrace.jobs import Idempotency, JobSpec, Message, Route
from headrace.store import Store
from headrace.store.insertion import JobInsertion, Placement, _Row
from headrace.tables import job_texts, jobs

OWN = Placement("chat.normal", Route.POOL, "own pool")


def count(store: Store, table: sa.Table) -> int:
    with store.begin() as db:
        return db.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def test_job_is_durable_with_its_text_when_insert_returns(store: Store, make_spec: Callable[..., JobSpec]) -> None:
    spec = make_spec(max_wait_s=90)

    inserted = JobInsertion(store).insert(spec, OWN)

    with store.begin() as db:
        row = db.execute(sa.select(jobs, job_texts).join(job_texts)).one()
    assert (row.id, row.state, row.queue) == (spec.id, "queued", "chat.normal")
    assert row.messages == [{"role": "user", "content": "What is a headrace?"}]
    assert inserted.start_by == row.start_by
    assert (row.start_by - row.created_at).total_seconds() == 90


def test_every_job_is_inserted_once_when_many_threads_share_commits(
    store: Store, make_spec: Callable[..., JobSpec]
) -> None:
    insertion = JobInsertion(store)
    specs = [make_spec() for _ in range(300)]

    with ThreadPoolExecutor(16) as threads:
        inserted = list(threads.map(lambda spec: insertion.insert(spec, OWN), specs))

    assert [each.job_id for each in inserted] == [spec.id for spec in specs]
    assert count(store, jobs) == 300


def test_bad_row_fails_alone_when_it_shares_a_statement(store: Store, make_spec: Callable[..., JobSpec]) -> None:
    insertion = JobInsertion(store)
    good = [make_spec() for _ in range(20)]
    bad = make_spec(messages=(Message("user", "NUL \0 is not text to Postgres"),))

    with ThreadPoolExecutor(21) as threads:
        outcomes = [threads.submit(insertion.insert, spec, OWN) for spec in [*good[:10], bad, *good[10:]]]

    assert [outcome.exception() is not None for outcome in outcomes] == [False] * 10 + [True] + [False] * 10
    assert count(store, jobs) == 20


def test_caller_behind_a_whole_batch_is_inserted_when_its_turn_comes_first(
    store: Store, make_spec: Callable[..., JobSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.store.insertion.BATCH_ROWS", 1)
    insertion = JobInsertion(store)
    ahead = _Row(make_spec(), OWN, Future())
    insertion._pending.append(ahead)  # Of a caller that has not had its turn yet.

    with ThreadPoolExecutor(1) as threads:
        try:
            threads.submit(insertion.insert, make_spec(), OWN).result(10)
        finally:
            while insertion._pending:
                insertion._insert_pending()

    assert ahead.outcome.done()
    assert count(store, jobs) == 2


def test_same_key_and_body_stand_for_one_job(store: Store, make_spec: Callable[..., JobSpec]) -> None:
    insertion = JobInsertion(store)
    first = make_spec(idempotency=Idempotency("k", b"body"))
    insertion.insert(first, OWN)

    replay = insertion.insert(make_spec(idempotency=Idempotency("k", b"body")), OWN)

    assert replay.is_replay
    assert replay.job_id == first.id
    assert count(store, jobs) == 1


def test_same_key_with_another_body_is_refused(store: Store, make_spec: Callable[..., JobSpec]) -> None:
    insertion = JobInsertion(store)
    insertion.insert(make_spec(idempotency=Idempotency("k", b"body")), OWN)

    with pytest.raises(IdempotencyKeyReused):
        insertion.insert(make_spec(idempotency=Idempotency("k", b"other")), OWN)

    assert count(store, jobs) == 1


def test_one_job_stands_when_a_key_comes_many_times_at_once(store: Store, make_spec: Callable[..., JobSpec]) -> None:
    processes = [JobInsertion(store) for _ in range(4)]
    specs = [make_spec(idempotency=Idempotency(f"k{i % 3}", b"body")) for i in range(60)]

    with ThreadPoolExecutor(8) as threads:
        pairs = zip(specs, processes * 15, strict=True)
        inserted = list(threads.map(lambda pair: pair[1].insert(pair[0], OWN), pairs))

    assert len({each.job_id for each in inserted}) == 3
    assert count(store, jobs) == 3
