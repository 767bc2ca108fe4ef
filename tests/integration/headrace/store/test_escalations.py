"""A job that goes on to a better pool: its row, its first answer, its ledger, and who may write any of it."""

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

from headrace.domain.answers import TokenLogprob
from headrace.domain.attempts import AttemptEnd, Claim, Escalation, Usage
from headrace.domain.jobs import Job
from headrace.domain.limits import Cost
from headrace.domain.queues import Route, Ticket
from headrace.domain.states import JobState
from headrace.store import Store, escalations, jobs
from headrace.store.jobs import texts
from headrace.tables import deliveries, job_texts, ledger
from headrace.tables import jobs as jobs_table
from tests import one_attempt

USD = Decimal("0.25")
TOKEN: TokenLogprob = {"token": "I", "logprob": -0.5, "bytes": [73], "top_logprobs": []}
FIRST = AttemptEnd(
    "succeeded",
    engine_s=1.5,
    cost=Cost(USD, "v1"),
    kind="compute",
    usage=Usage(9, 5, 2, 1),
    text="I cannot \0 help.",
    finish_reason="stop",
    model_served="small-1",
    api_usd=Decimal("0.75"),
    host_id="host",
    logprobs=(TOKEN,),
    reasoning="Hm.",
)
BETTER = replace(FIRST, text="Of course.", cost=Cost(Decimal("0.5"), "v2"), model_served="large-1", logprobs=None)
FAILED = AttemptEnd("failed", 0.1, Cost(Decimal(0), "v2"), "waste", error_code="budget_exceeded")
TO = Escalation("refusal", "chat", "large", "chat.normal", Route.POOL, "rule 'short': chat, because it declined", 60.0)
PAID = replace(TO, pool="paid", model="gpt-4o", queue="overflow.normal", route=Route.OVERFLOW)

Make = Callable[..., Claim]


@pytest.fixture
def claim(store: Store) -> Callable[[Ticket], Claim]:
    """Has a new worker claim a queued job."""

    return lambda ticket: one_attempt.claimed(store, ticket, "fast")


@pytest.fixture
def claimed(queued: Callable[..., Ticket], claim: Callable[[Ticket], Claim]) -> Make:
    """Inserts a job of the rule `short` in the pool `fast`, and claims it."""

    def make(**changes: Any) -> Claim:
        return claim(queued(**{"rule": "short", "pool": "fast", "model": "small", **changes}))

    return make


@pytest.fixture
def again(store: Store, claim: Callable[[Ticket], Claim]) -> Callable[[], Claim]:
    """Has the job that is due queued again, and claimed."""

    def take() -> Claim:
        with store.begin() as db:
            [ticket] = jobs.enqueue_due(db)
        return claim(ticket)

    return take


def escalate(store: Store, claim: Claim, to: Escalation = TO) -> JobState | None:
    with store.begin() as db:
        return escalations.escalate(db, claim, FIRST, to)


def stand_in(store: Store, claim: Claim) -> bool:
    with store.begin() as db:
        return escalations.stand_in(db, claim, FAILED, "budget_exceeded") is JobState.SUCCEEDED


def job(store: Store, claim: Claim) -> Job:
    with store.begin() as db:
        return jobs.find(db, claim.app_id, claim.job_id)


def row(store: Store, job_id: UUID) -> Any:
    with store.begin() as db:
        return db.execute(sa.select(jobs_table).where(jobs_table.c.id == job_id)).one()


def entries(store: Store) -> list[tuple[Any, ...]]:
    columns = (ledger.c[name] for name in ("kind", "reason", "attempt", "pool", "usd", "output_tokens"))
    with store.begin() as db:
        return [tuple(each) for each in db.execute(sa.select(*columns).order_by(ledger.c.id))]


def test_a_job_goes_on_to_the_next_pool_and_its_first_attempt_is_waste(store: Store, claimed: Make) -> None:
    first = claimed()
    assert (first.rule, first.stand_by) == ("short", None)

    assert escalate(store, first) is JobState.WAITING

    moved = row(store, first.job_id)
    assert (moved.state, moved.pool, moved.queue, moved.model_requested) == ("waiting", "chat", "chat.normal", "large")
    assert (moved.route, moved.route_reason, moved.overflow_at) == ("pool", TO.reason, None)
    assert (moved.attempt, moved.started_at is not None, moved.usd) == (1, True, 0)
    assert entries(store) == [("waste", "escalated", 1, "fast", USD, 5)]
    assert job(store, first).answer is None, "no caller is given it yet"
    with store.begin() as db:
        ended = db.execute(sa.text("SELECT outcome, escalated_by, model_served, ended_at FROM attempts")).one()
    assert (ended.outcome, ended.escalated_by, ended.model_served) == ("succeeded", "refusal", "small-1")


def test_the_next_pool_s_answer_ends_it_with_one_bill(store: Store, claimed: Make, again: Callable[[], Claim]) -> None:
    escalate(store, claimed())
    second = again()
    assert (second.attempt, second.pool, second.model, second.enqueue_no) == (2, "chat", "large", 2)
    assert second.stand_by is not None

    with store.begin() as db:
        assert one_attempt.finish(db, second, JobState.SUCCEEDED, BETTER)

    done = job(store, second)
    assert (done.state, done.answer, done.usd, done.pool) == (JobState.SUCCEEDED, "Of course.", Decimal("0.5"), "chat")
    assert entries(store) == [
        ("waste", "escalated", 1, "fast", USD, 5),
        ("compute", None, 2, "chat", Decimal("0.5"), 5),
    ]


def test_a_lost_claim_escalates_nothing(store: Store, claimed: Make) -> None:
    first = claimed()
    stale = replace(first, enqueue_no=7)
    assert escalate(store, stale) is None
    assert (row(store, first.job_id).state, entries(store)) == ("running", [])
    with store.begin() as db:
        assert db.scalar(sa.select(job_texts.c.kept_answer)) is None
    assert not stand_in(store, first), "without an answer nothing stands"


def test_of_an_end_and_an_escalation_at_once_one_happens(store: Store, claimed: Make) -> None:
    for _ in range(5):
        first, together = claimed(), threading.Barrier(2)

        def end(first: Claim = first, together: threading.Barrier = together) -> bool:
            together.wait(10)
            with store.begin() as db:
                return one_attempt.finish(db, first, JobState.SUCCEEDED, FIRST)

        def move(first: Claim = first, together: threading.Barrier = together) -> bool:
            together.wait(10)
            return escalate(store, first) is not None

        with ThreadPoolExecutor(2) as threads:
            outcomes = [future.result(20) for future in (threads.submit(end), threads.submit(move))]
        assert sorted(outcomes) == [False, True]
    assert len(entries(store)) == 5


def test_a_job_whose_cancel_was_asked_for_is_cancelled_instead(store: Store, claimed: Make) -> None:
    first = claimed()
    with store.begin() as db:
        jobs.cancel(db, first.app_id, first.job_id)
    assert escalate(store, first) is JobState.CANCELLED
    assert entries(store) == [("waste", "escalated", 1, "fast", USD, 5)]


def test_an_escalated_job_is_cancelled_in_its_new_queue_like_any_other(store: Store, claimed: Make) -> None:
    first = claimed()
    escalate(store, first)
    with store.begin() as db:
        jobs.cancel(db, first.app_id, first.job_id)
    assert (job(store, first).state, job(store, first).usd) == (JobState.CANCELLED, 0)
    with store.begin() as db:
        assert escalations.overdue(db) == []


def test_the_first_answer_stands_where_no_better_one_comes(
    store: Store, claimed: Make, again: Callable[[], Claim]
) -> None:
    escalate(store, claimed(webhook_url="https://receiver.example"), PAID)
    second = again()
    assert (second.route, row(store, second.job_id).overflow_at is not None) == (Route.OVERFLOW, True)

    assert stand_in(store, second)

    done = job(store, second)
    assert (done.state, done.answer, done.reasoning) == (JobState.SUCCEEDED, "I cannot \ufffd help.", "Hm.")
    assert (done.usd, done.pool, done.queue, done.route) == (USD, "fast", "fast.normal", Route.POOL)
    assert (done.model_requested, done.model_served, done.finish_reason) == ("small", "small-1", "stop")
    assert (done.prompt_tokens, done.output_tokens, done.cached_tokens, done.reasoning_tokens) == (9, 5, 2, 1)
    assert done.route_reason == "rule 'short': the answer of fast stands: budget_exceeded"
    assert done.logprobs is not None
    assert list(done.logprobs) == [TOKEN]
    assert (done.error_code, done.error_message) == (None, None)
    with store.begin() as db:
        assert db.scalar(sa.select(deliveries.c.event)) == "response.completed"
        assert db.scalar(sa.select(job_texts.c.kept_answer)) is None
        told = db.execute(sa.text("SELECT usd, waste_usd, output_tokens, api_usd FROM cost_per_request")).one()
    assert entries(store) == [
        ("waste", "escalated", 1, "fast", USD, 5),
        ("waste", "kept", 1, "fast", -USD, 0),
        ("compute", None, 1, "fast", USD, 5),
        ("waste", None, 2, "paid", 0, 0),
    ]
    assert tuple(told) == (USD, 0, 5, Decimal("0.75"))


def test_the_first_answer_stands_once(store: Store, claimed: Make, again: Callable[[], Claim]) -> None:
    escalate(store, claimed())
    second = again()
    with ThreadPoolExecutor(2) as threads:
        stood = list(threads.map(lambda _: stand_in(store, second), range(2)))
    assert sorted(stood) == [False, True]
    assert [kind for kind, *_ in entries(store)].count("compute") == 1


def test_a_job_that_waits_too_long_for_a_better_answer_is_overdue(store: Store, claimed: Make) -> None:
    escalate(store, claimed(), replace(TO, wait_s=3600))
    late = claimed()
    escalate(store, late, replace(TO, wait_s=0))

    with store.begin() as db:
        found = escalations.overdue(db)
        assert [each.id for each in found] == [late.job_id]
        assert [each.id for each in escalations.stand(db, found)] == [late.job_id]
    done = job(store, late)
    assert (done.state, done.answer, done.usd) == (JobState.SUCCEEDED, "I cannot \ufffd help.", USD)
    assert done.route_reason == "rule 'short': the answer of fast stands: no better answer came in time"


def test_a_running_job_is_not_overdue(store: Store, claimed: Make, again: Callable[[], Claim]) -> None:
    escalate(store, claimed(), replace(TO, wait_s=0))
    again()
    with store.begin() as db:
        assert escalations.overdue(db) == []


def test_the_answer_is_given_before_the_deadline(store: Store, claimed: Make) -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=30)
    first = claimed(deadline=deadline)
    escalate(store, first)
    until: datetime = row(store, first.job_id).stand_by
    assert until == deadline - escalations.BEFORE_DEADLINE


def test_an_erased_job_has_no_kept_answer(store: Store, claimed: Make, again: Callable[[], Claim]) -> None:
    escalate(store, claimed())
    second = again()
    with store.begin() as db:
        one_attempt.finish(db, second, JobState.SUCCEEDED, BETTER)
        texts.erase(db, second.app_id, second.job_id)
        assert db.scalar(sa.select(sa.func.count()).select_from(job_texts)) == 0


def test_a_rule_s_jobs_are_counted_by_task_and_by_what_sent_them_on(
    store: Store, claimed: Make, again: Callable[[], Claim]
) -> None:
    metadata = {"task": "classify"}
    with store.begin() as db:
        assert one_attempt.finish(db, claimed(metadata=metadata), JobState.SUCCEEDED, replace(FIRST, logprobs=None))
    escalate(store, claimed(metadata=metadata))
    with store.begin() as db:
        one_attempt.finish(db, again(), JobState.SUCCEEDED, BETTER)
    escalate(store, claimed(metadata=metadata), replace(TO, signal="length"))
    stand_in(store, again())
    claimed(rule=None)

    with store.begin() as db:
        found = db.execute(sa.text("SELECT * FROM routing_per_day")).mappings().all()

    [counted] = found
    assert (counted["app"], counted["rule"], counted["task"]) == ("test", "short", "classify")
    assert (counted["jobs"], counted["succeeded"], counted["cached"], counted["escalated"], counted["kept"]) == (
        *(3, 3, 0, 2, 1),
    )
    assert [counted[f"by_{signal}"] for signal in ("length", "refusal", "format", "logprob")] == [1, 1, 0, 0]
    assert (counted["usd"], counted["waste_usd"]) == (USD + Decimal("0.5") + USD, USD)
