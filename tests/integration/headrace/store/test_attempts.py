""""""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError

from headrace.domain.attempts import AttemptEnd, Claim, Usage
from headrace.domain.deliveries import Terms
from headrace.domain.fleet import WorkerReport
from headrace.domain.ids import new_id, show_id
from headrace.domain.jobs import Job
from headrace.domain.limits import Cost
from headrace.domain.prompts import Sampling
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.store import Store, apps, attempts, jobs
from headrace.store import deliveries as outbox
from headrace.store.attempts import claim_of
from headrace.store.fleet import workers
from headrace.store.states import transition
from headrace.tables import attempts as attempts_table
from headrace.tables import deliveries, ledger
from tests import one_attempt
from tests.integration.months_of_jobs import with_whole_indexes

DONE = AttemptEnd(
    "succeeded",
    engine_s=1.5,
    cost=Cost(Decimal("0.000012345"), "v1"),
    kind="compute",
    usage=Usage(9, 5, 2),
    text="A channel \0 that feeds a turbine.",
    finish_reason="stop",
    model_served="test-model",
)

UNUSED = AttemptEnd("aborted", 0.1, Cost(Decimal(0), "v1"), "waste")


@pytest.fixture
def worker(store: Store) -> UUID:
    return add_worker(store)


def add_worker(store: Store, lease_s: float = 10) -> UUID:
    with store.begin() as db:
        return one_attempt.add_worker(db, lease_s=lease_s)


def claim(store: Store, ticket: Ticket, worker: UUID, enqueue_no: int | None = None) -> Claim | None:
    with store.begin() as db:
        return one_attempt.claim(db, ticket.job_id, enqueue_no or ticket.enqueue_no, worker, "simulator")


def must_claim(store: Store, ticket: Ticket, worker: UUID) -> Claim:
    claimed = claim(store, ticket, worker)
    assert claimed is not None
    return claimed


def job(store: Store, ticket: Ticket) -> Job:
    with store.begin() as db:
        return jobs.find(db, ticket.app_id, ticket.job_id)


def entries(store: Store) -> list[tuple[str, int, Decimal]]:
    with store.begin() as db:
        return [tuple(row) for row in db.execute(sa.select(ledger.c.kind, ledger.c.attempt, ledger.c.usd))]


def test_a_claim_waits_for_the_disk(store: Store, queued: Callable[..., Ticket], worker: UUID) -> None:
    """Else a crash of Postgres could undo it after its job has left the books in Redis, which nothing would notice."""
    with store.begin() as db:
        assert one_attempt.claim(db, (ticket := queued()).job_id, ticket.enqueue_no, worker, "simulator")
        assert db.scalar(sa.select(sa.func.current_setting("synchronous_commit"))) == "on"


def test_claimed_job_finishes_with_result_and_one_bill(
    store: Store, queued: Callable[..., Ticket], worker: UUID
) -> None:
    ticket = queued()
    claimed = must_claim(store, ticket, worker)
    with store.begin() as db:
        assert one_attempt.finish(db, claimed, JobState.SUCCEEDED, DONE)

    found = job(store, ticket)
    assert found.state is JobState.SUCCEEDED
    assert found.answer == "A channel \ufffd that feeds a turbine."
    assert (found.prompt_tokens, found.output_tokens, found.cached_tokens) == (9, 5, 2)
    assert found.usd == Decimal("0.000012345")
    assert entries(store) == [("compute", 1, Decimal("0.000012345"))]


def test_preemptions_of_an_attempt_are_kept(store: Store, queued: Callable[..., Ticket], worker: UUID) -> None:
    claims = [must_claim(store, queued(), worker) for _ in range(2)]
    with store.begin() as db:
        assert one_attempt.finish(db, claims[0], JobState.SUCCEEDED, replace(DONE, preemptions=2))
        assert attempts.retry(db, claims[1], DONE, 0)
        kept = sa.select(attempts_table.c.preemptions).order_by(attempts_table.c.preemptions)
        assert list(db.scalars(kept)) == [0, 2]


def test_a_claim_says_which_adapter_the_job_asked_for(
    store: Store, queued: Callable[..., Ticket], worker: UUID
) -> None:
    assert must_claim(store, queued(model="sql", adapter="sql"), worker).adapter == "sql"
    assert must_claim(store, queued(), worker).adapter is None


def test_one_worker_wins_when_many_claim_at_once(store: Store, queued: Callable[..., Ticket]) -> None:
    ticket = queued()
    rivals = [add_worker(store) for _ in range(8)]

    with ThreadPoolExecutor(8) as threads:
        claims = list(threads.map(lambda rival: claim(store, ticket, rival), rivals))

    assert sum(each is not None for each in claims) == 1


def test_old_message_finds_nothing(store: Store, queued: Callable[..., Ticket], worker: UUID) -> None:
    ticket = queued()

    assert claim(store, ticket, worker, enqueue_no=2) is None
    assert claim(store, ticket, worker) is not None


def test_worker_without_a_lease_claims_nothing(store: Store, queued: Callable[..., Ticket]) -> None:
    assert claim(store, queued(), add_worker(store, lease_s=0)) is None


def test_job_past_its_start_by_is_not_claimed(
    store: Store, queued: Callable[..., Ticket], worker: UUID, age: Callable[[UUID, timedelta], None]
) -> None:
    ticket = queued()
    age(ticket.job_id, timedelta(seconds=31))

    assert claim(store, ticket, worker) is None


def test_job_that_started_once_is_claimed_again_after_its_start_by(
    store: Store, queued: Callable[..., Ticket], worker: UUID, age: Callable[[UUID, timedelta], None]
) -> None:
    ticket = queued()
    claimed = must_claim(store, ticket, worker)
    with store.begin() as db:
        assert attempts.retry(db, claimed, AttemptEnd("failed", 0.1, DONE.cost, "waste"), delay_s=0)
    age(ticket.job_id, timedelta(seconds=31))
    with store.begin() as db:
        (again,) = jobs.enqueue_due(db)

    assert again.enqueue_no == 2
    assert must_claim(store, again, worker).attempt == 2


def test_stale_worker_writes_nothing(store: Store, queued: Callable[..., Ticket], worker: UUID) -> None:
    ticket = queued()
    stale = must_claim(store, ticket, worker)
    with store.begin() as db:
        attempts.hand_back(db, stale, UNUSED)
        (again,) = jobs.enqueue_due(db)
    fresh = must_claim(store, again, add_worker(store))

    with store.begin() as db:
        assert not one_attempt.finish(db, stale, JobState.SUCCEEDED, DONE)
        assert not attempts.retry(db, stale, DONE, 0)
        assert not attempts.hand_back(db, stale, UNUSED)

    assert job(store, ticket).state is JobState.RUNNING
    assert entries(store) == []
    with store.begin() as db:
        assert one_attempt.finish(db, fresh, JobState.SUCCEEDED, DONE)


def test_handed_back_job_counts_no_attempt(store: Store, queued: Callable[..., Ticket], worker: UUID) -> None:
    ticket = queued()
    claimed = must_claim(store, ticket, worker)

    with store.begin() as db:
        assert attempts.hand_back(db, claimed, UNUSED)

    found = job(store, ticket)
    assert (found.state, found.attempt) == (JobState.WAITING, 0)
    assert entries(store) == []


def test_tokens_of_a_handed_back_job_are_booked_as_waste(
    store: Store, queued: Callable[..., Ticket], worker: UUID
) -> None:
    ticket = queued()
    claimed = must_claim(store, ticket, worker)

    with store.begin() as db:
        assert attempts.hand_back(db, claimed, replace(DONE, outcome="aborted", kind="waste"))

    assert job(store, ticket).usd == 0
    assert entries(store) == [("waste", 1, DONE.cost.usd)]


@pytest.mark.parametrize("give_up", ["retry", "hand_back"])
def test_job_that_is_put_back_after_its_cancel_was_asked_for_is_cancelled(
    give_up: str, store: Store, queued: Callable[..., Ticket], worker: UUID
) -> None:
    ticket = queued()
    claimed = must_claim(store, ticket, worker)

    with store.begin() as db:
        jobs.cancel(db, ticket.app_id, ticket.job_id)
        if give_up == "retry":
            assert attempts.retry(db, claimed, UNUSED, 0)
        else:
            assert attempts.hand_back(db, claimed, UNUSED)

    assert job(store, ticket).state is JobState.CANCELLED
    with store.begin() as db:
        assert db.scalar(sa.text("SELECT count(*) FROM attempts WHERE ended_at IS NULL")) == 0


def test_cancel_is_not_lost_when_the_job_is_put_back_at_the_same_moment(
    store: Store, queued: Callable[..., Ticket], worker: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = queued()
    claimed = must_claim(store, ticket, worker)
    put_back = threading.Event()

    def retry() -> None:
        with store.begin() as db:
            attempts.retry(db, claimed, UNUSED, 0)
        put_back.set()

    rival = threading.Thread(target=retry)

    def transition_then_rival(*args: Any, **values: Any) -> Any:
        rows = transition(*args, **values)
        rival.start()
        put_back.wait(0.5)  # It cannot end while the cancel holds the row.
        return rows

    monkeypatch.setattr(jobs, "transition", transition_then_rival)
    with store.begin() as db:
        jobs.cancel(db, ticket.app_id, ticket.job_id)
    monkeypatch.undo()
    rival.join(10)

    assert job(store, ticket).state is JobState.CANCELLED


def test_disowned_job_is_an_orphan_though_its_worker_lives(
    store: Store, queued: Callable[..., Ticket], worker: UUID
) -> None:
    ticket = queued()
    must_claim(store, ticket, worker)

    with store.begin() as db:
        (held,) = workers.renew(db, worker, 10, WorkerReport(0, ready=True)).held
        assert jobs.orphans(db) == []
        workers.disown(db, worker, held)
        assert [row.id for row in jobs.orphans(db)] == [ticket.job_id]


def test_job_of_the_largest_sizes_can_be_read(store: Store, queued: Callable[..., Ticket]) -> None:
    ticket = queued(prompt_tokens=2**31 - 1, sampling=Sampling(max_tokens=2**31 - 1))

    assert ticket.kv_tokens == 2**32 - 2


def test_second_bill_for_a_job_is_refused_by_the_database(
    store: Store, queued: Callable[..., Ticket], worker: UUID
) -> None:
    claimed = must_claim(store, queued(), worker)
    with store.begin() as db:
        one_attempt.finish(db, claimed, JobState.SUCCEEDED, DONE)

    again = sa.insert(ledger).values(kind="compute", job_id=claimed.job_id, attempt=1, usd=1)
    with pytest.raises(DatabaseError, match="duplicate key") as raised, store.begin() as db:
        db.execute(again)
    with store.begin() as db:
        assert "uq_ledger_bill" in with_whole_indexes(db, str(raised.value))


@pytest.mark.parametrize("change", ["UPDATE ledger SET usd = 0", "DELETE FROM ledger"])
def test_ledger_entry_is_never_changed(change: str, store: Store, queued: Callable[..., Ticket], worker: UUID) -> None:
    claimed = must_claim(store, queued(), worker)
    with store.begin() as db:
        one_attempt.finish(db, claimed, JobState.SUCCEEDED, DONE)

    with pytest.raises(DatabaseError, match="immutable"), store.begin() as db:
        db.execute(sa.text(change))


def test_one_job_whose_time_is_over_can_be_ended_alone(
    store: Store, queued: Callable[..., Ticket], age: Callable[[UUID, timedelta], None]
) -> None:
    ticket, other = queued(), queued()
    assert not job(store, ticket).is_over
    for each in (ticket, other):
        age(each.job_id, timedelta(seconds=31))
    assert job(store, ticket).is_over

    with store.begin() as db:
        assert jobs.expire(db, [ticket.job_id]) == [job(store, ticket).ticket]
    expired = job(store, ticket)

    assert (job(store, other).state, job(store, other).is_over) == (JobState.QUEUED, True)
    assert not expired.is_over
    assert (expired.state, expired.error_code, expired.usd) == (JobState.EXPIRED, "expired", 0)


def test_cancel_ends_a_queued_job_at_once_and_asks_for_a_running_one(
    store: Store, queued: Callable[..., Ticket], worker: UUID
) -> None:
    waiting, running = queued(), queued()
    claimed = must_claim(store, running, worker)

    with store.begin() as db:
        assert jobs.cancel(db, waiting.app_id, waiting.job_id).state is JobState.CANCELLED
        assert jobs.cancel(db, running.app_id, running.job_id).state is JobState.RUNNING
        requests = workers.renew(db, worker, 10, WorkerReport(1, ready=True)).held

    assert [(each.request_id, each.stop) for each in requests] == [(claimed.request_id, "cancelled")]
    assert claim(store, waiting, worker) is None


def test_renewal_reports_a_running_job_past_its_deadline(
    store: Store, queued: Callable[..., Ticket], worker: UUID, age: Callable[[UUID, timedelta], None]
) -> None:
    ticket = queued(deadline=datetime.now(UTC) + timedelta(seconds=60))
    must_claim(store, ticket, worker)
    age(ticket.job_id, timedelta(seconds=61))

    with store.begin() as db:
        (request,) = workers.renew(db, worker, 10, WorkerReport(1, ready=True)).held

    assert request.stop == "deadline_exceeded"


def test_ended_job_with_a_webhook_leaves_one_delivery(
    store: Store, queued: Callable[..., Ticket], worker: UUID
) -> None:
    ticket = queued(webhook_url="https://receiver.example/hook")
    claimed = must_claim(store, ticket, worker)
    with store.begin() as db:
        one_attempt.finish(db, claimed, JobState.SUCCEEDED, DONE)

    terms = Terms(2, per_app=2, per_receiver=2, max_tries=3, lease_s=60)
    with store.begin() as db:
        [delivery] = outbox.pull(db, terms).deliveries
        assert not outbox.pull(db, terms).deliveries
        secret = apps.find_app(db, "test").webhook_secret
    assert (delivery.event, delivery.tries, delivery.secrets) == ("response.completed", 1, (secret,))
    assert delivery.data["job_id"] == show_id(ticket.job_id)


def test_cost_per_request_adds_the_entries_of_a_job(store: Store, queued: Callable[..., Ticket], worker: UUID) -> None:
    ticket = queued(end_user="u1")
    first = must_claim(store, ticket, worker)
    with store.begin() as db:
        attempts.retry(db, first, AttemptEnd("failed", 0.5, Cost(Decimal("0.000001"), "v1"), "waste"), 0)
        (again,) = jobs.enqueue_due(db)
    second = must_claim(store, again, worker)
    with store.begin() as db:
        one_attempt.finish(db, second, JobState.SUCCEEDED, DONE)
        row = db.execute(sa.text("SELECT * FROM cost_per_request")).one()

    assert (row.app, row.end_user, row.state, row.attempts) == ("test", "u1", "succeeded", 2)
    assert (row.usd, row.waste_usd, row.engine_s) == (Decimal("0.000012345"), Decimal("0.000001"), 2.0)


def test_of_claims_in_one_statement_each_is_fenced_by_itself(
    store: Store, queued: Callable[..., Ticket], worker: UUID
) -> None:
    good, taken, cancelled, moved = (queued() for _ in range(4))
    must_claim(store, taken, add_worker(store))
    with store.begin() as db:
        jobs.cancel(db, cancelled.app_id, cancelled.job_id)
    numbers = {each.job_id: 1 for each in (good, taken, cancelled)} | {moved.job_id: 7, new_id(): 1}
    with store.autocommit() as db:
        rows = attempts.claim_all(db, numbers, worker, "simulator")
    assert {job_id: claim_of(row).attempt for job_id, row in rows.items()} == {good.job_id: 1}


def test_of_claims_under_a_lease_that_has_ended_none_holds(store: Store, queued: Callable[..., Ticket]) -> None:
    tickets = [queued() for _ in range(3)]
    dead = add_worker(store, lease_s=0)
    with store.autocommit() as db:
        assert attempts.claim_all(db, {each.job_id: 1 for each in tickets}, dead, "simulator") == {}


def test_of_ends_in_one_statement_a_stale_one_writes_nothing(
    store: Store, queued: Callable[..., Ticket], worker: UUID
) -> None:
    claims = [must_claim(store, queued(), worker) for _ in range(4)]
    # Of one the attempt, of one the number, and of one the worker is another by now.
    stale = [
        replace(claims[1], attempt=2),
        replace(claims[2], enqueue_no=2),
        replace(claims[3], worker_id=new_id()),
    ]
    ends = [(each, replace(DONE, text=str(each.job_id))) for each in (claims[0], *stale)]
    with store.autocommit() as db:
        assert attempts.finish_all(db, JobState.SUCCEEDED, ends) == {claims[0].job_id}
    with store.begin() as db:
        found = {each.job_id: jobs.find(db, each.app_id, each.job_id) for each in claims}
    assert [found[each.job_id].state for each in claims] == ["succeeded", "running", "running", "running"]
    assert [found[each.job_id].answer for each in claims] == [str(claims[0].job_id), None, None, None]
    assert len(entries(store)) == 1


def test_ends_in_one_statement_each_have_their_own_answer_bill_and_webhook(
    store: Store, queued: Callable[..., Ticket], worker: UUID
) -> None:
    hook = "https://receiver.example/hook"
    claims = [must_claim(store, queued(webhook_url=url), worker) for url in (None, hook, None)]
    ends = [
        (each, replace(DONE, text=f"Answer {number}.", cost=Cost(Decimal(number), f"v{number}")))
        for number, each in enumerate(claims)
    ]
    with store.begin() as db:
        assert attempts.finish_all(db, JobState.SUCCEEDED, ends) == {each.job_id for each in claims}
    with store.begin() as db:
        found = [jobs.find(db, each.app_id, each.job_id) for each in claims]
        announced = list(db.scalars(sa.select(deliveries.c.job_id)))
    assert [(each.answer, each.usd, each.price_version) for each in found] == [
        (f"Answer {number}.", number, f"v{number}") for number in range(3)
    ]
    assert announced == [claims[1].job_id]
    assert sorted(entries(store)) == [("compute", 1, Decimal(number)) for number in range(3)]
