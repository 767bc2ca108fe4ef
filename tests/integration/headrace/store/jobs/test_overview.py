"""What the retry of a failed job has of it, and what it has of its own."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.domain.attempts import AttemptEnd
from headrace.domain.ids import show_id
from headrace.domain.limits import Cost
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.errors import InvalidRequest
from headrace.store import Store, jobs
from headrace.store.jobs import overview
from headrace.tables import deliveries, job_texts, ledger
from headrace.tables import jobs as jobs_table
from tests import one_attempt

HOOK = "https://receiver.example/hook"
WASTED = AttemptEnd("failed", 1, Cost(Decimal("0.001"), "v1"), "waste", error_code="engine_fault")
DONE = AttemptEnd("succeeded", 1, Cost(Decimal("0.002"), "v1"), "compute", text="An answer.")


@pytest.fixture
def worker(store: Store) -> UUID:
    with store.begin() as db:
        return one_attempt.add_worker(db)


@pytest.fixture
def run(store: Store, worker: UUID) -> Callable[[UUID, JobState, AttemptEnd], None]:
    """Lets the worker run a queued job once, to this end."""

    def attempt(job_id: UUID, target: JobState, end: AttemptEnd) -> None:
        with store.begin() as db:
            claim = one_attempt.claim(db, job_id, 1, worker, "simulator")
            assert claim is not None
            assert one_attempt.finish(db, claim, target, end)

    return attempt


def retry(store: Store, job_id: UUID) -> UUID:
    with store.begin() as db:
        return overview.retry(db, [job_id])[job_id]


def rows(store: Store, statement: sa.Select[Any]) -> list[tuple[Any, ...]]:
    with store.begin() as db:
        return [tuple(row) for row in db.execute(statement)]


def row(store: Store, job_id: UUID) -> dict[str, Any]:
    with store.begin() as db:
        return dict(db.execute(sa.select(jobs_table).where(jobs_table.c.id == job_id)).one()._mapping)


def test_a_retry_asks_the_same_of_the_same_queue_for_as_long(
    store: Store, queued: Callable[..., Ticket], run: Any, age: Any
) -> None:
    ticket = queued(
        messages=(Message("system", "Be brief."), Message("user", "Why?")),
        sampling=Sampling(max_tokens=7, temperature=0.5, stop=("x",)),
        metadata={"order": "17"},
        end_user="somebody",
        max_cost_usd=Decimal("0.25"),
        max_wait_s=60.0,
        deadline=datetime.now(UTC) + timedelta(seconds=90),
        webhook_url=HOOK,
        background=False,
        stream=True,
    )
    run(ticket.job_id, JobState.FAILED, WASTED)
    age(ticket.job_id, timedelta(hours=1))

    new_id = retry(store, ticket.job_id)

    old, new = row(store, ticket.job_id), row(store, new_id)
    own = {"id", "state", "created_at", "queued_at", "start_by", "finish_by", "retry_of", "route_reason", "background"}
    tokens = {"output_tokens", "cached_tokens", "reasoning_tokens"}
    of_the_end = {"attempt", "started_at", "ended_at", "error_code", *tokens}
    assert {name for name in old if old[name] != new[name]} == own | of_the_end
    assert (new["state"], new["retry_of"], new["attempt"], new["background"]) == ("queued", ticket.job_id, 0, True)
    assert new["route_reason"] == f"retry of {show_id(ticket.job_id)}"
    assert all(new[name] is None for name in ("started_at", "ended_at", "error_code"))
    for clock in ("start_by", "finish_by"):
        assert new[clock] - new["created_at"] == old[clock] - old["created_at"]
    texts = sa.select(job_texts.c.messages, job_texts.c.sampling, job_texts.c.answer)
    assert rows(store, texts.where(job_texts.c.job_id == ticket.job_id)) == rows(
        store, texts.where(job_texts.c.job_id == new_id)
    )


def test_a_retry_has_an_end_a_bill_and_a_webhook_of_its_own(
    store: Store, queued: Callable[..., Ticket], run: Any
) -> None:
    old = queued(webhook_url=HOOK).job_id
    run(old, JobState.FAILED, WASTED)
    before = row(store, old)
    new = retry(store, old)
    run(new, JobState.SUCCEEDED, DONE)

    assert row(store, old) == before
    assert rows(store, sa.select(ledger.c.job_id, ledger.c.kind).order_by(ledger.c.id)) == [
        (old, "waste"),
        (new, "compute"),
    ]
    assert sorted(rows(store, sa.select(deliveries.c.job_id, deliveries.c.event))) == [
        (old, "response.failed"),
        (new, "response.completed"),
    ]


def test_a_suspect_stays_one(store: Store, queued: Callable[..., Ticket], run: Any) -> None:
    ticket = queued()
    with store.begin() as db:
        db.execute(sa.update(jobs_table).values(suspicion=2))
    run(ticket.job_id, JobState.FAILED, WASTED)
    new = retry(store, ticket.job_id)
    with store.begin() as db:
        assert jobs.find(db, ticket.app_id, new).ticket.alone


def test_of_two_operators_at_once_one_retries_it(store: Store, queued: Callable[..., Ticket], run: Any) -> None:
    job_id = queued().job_id
    run(job_id, JobState.FAILED, WASTED)
    start = Barrier(2)

    def operator(_: int) -> UUID | str:
        start.wait(10)
        try:
            return retry(store, job_id)
        except InvalidRequest as error:
            return str(error)

    with ThreadPoolExecutor(2) as threads:
        told = list(threads.map(operator, range(2)))
    [new] = [each for each in told if isinstance(each, UUID)]
    assert f"Job '{show_id(job_id)}' was retried already, as '{show_id(new)}': retry that." in told
