"""Jobs that have an answer and wait for a better one: the sweep that gives it, and what else may become of them."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.domain.attempts import AttemptEnd, Claim, Escalation, Usage
from headrace.domain.limits import Cost
from headrace.domain.queues import Route, Ticket
from headrace.domain.states import JobState
from headrace.store import Store, escalations
from headrace.store.cache import exact_cache
from headrace.store.cache.exact_cache import Follower
from headrace.tables import jobs
from scheduler.deps import ControlDeps
from scheduler.rescue import Patience, rescue
from scheduler.sweep import give_kept, publish_due, settle_followers
from tests import one_attempt

USD = Decimal("0.25")
FIRST = AttemptEnd(
    "succeeded", 1.5, Cost(USD, "v1"), "compute", Usage(9, 5), text="No.", finish_reason="stop", model_served="small-1"
)
TO = Escalation("refusal", "chat", "large", "chat.normal", Route.POOL, "because", wait_s=3600)
Row = Callable[[UUID], Any]


@pytest.fixture
def escalated(queued: Callable[..., Ticket], claim: Callable[..., Claim], store: Store) -> Callable[..., UUID]:
    """Inserts a job of a rule that was answered by `fast`, and waits for `chat`."""

    def make(wait_s: float = TO.wait_s, **changes: Any) -> UUID:
        ticket = queued(rule="short", pool="fast", model="small", **changes)
        held = claim(ticket.job_id, 1)
        with store.begin() as db:
            assert escalations.escalate(db, held, FIRST, replace(TO, wait_s=wait_s)) is JobState.WAITING
        return ticket.job_id

    return make


def test_a_job_is_given_its_answer_when_it_has_waited_long_enough(
    deps: ControlDeps, escalated: Callable[..., UUID], row_of: Row, query: Any
) -> None:
    patient, late = escalated(), escalated(wait_s=0, webhook_url="https://h.example/1")

    assert give_kept(deps) == 1
    assert give_kept(deps) == 0

    assert [row_of(job_id).state for job_id in (patient, late)] == ["waiting", "succeeded"]
    assert query("SELECT job_id FROM deliveries") == [(late,)]
    assert query("SELECT answer FROM job_texts WHERE job_id = :id", id=late) == [("No.",)]


def test_one_that_is_queued_leaves_its_queue(
    deps: ControlDeps, escalated: Callable[..., UUID], in_list: Any, row_of: Row, query: Any
) -> None:
    job_id = escalated()
    publish_due(deps)
    assert in_list("chat.normal") == [(job_id, 2)]

    query("UPDATE jobs SET stand_by = now() WHERE id = :id", id=job_id)
    assert give_kept(deps) == 1

    assert in_list("chat.normal") == []
    assert (row_of(job_id).state, row_of(job_id).pool) == ("succeeded", "fast")


def test_a_crash_after_the_escalation_leaves_a_job_that_publish_due_queues(
    deps: ControlDeps, escalated: Callable[..., UUID], in_list: Any, row_of: Row
) -> None:
    job_id = escalated()
    assert row_of(job_id).state == "waiting", "its worker need do no more"
    publish_due(deps)
    assert (row_of(job_id).state, row_of(job_id).queue, in_list("fast.normal")) == ("queued", "chat.normal", [])
    assert in_list("chat.normal") == [(job_id, 2)]


def test_a_worker_that_dies_under_the_second_attempt_costs_another_and_at_last_the_answer_stands(
    deps: ControlDeps,
    escalated: Callable[..., UUID],
    running_under: Callable[..., UUID],
    end_lease: Callable[[UUID], None],
    row_of: Row,
    query: Any,
    queued_again: Callable[[UUID], Ticket],
) -> None:
    job_id = escalated()
    deps = replace(deps, settings=deps.settings.model_copy(update={"max_attempts": 3}))
    for attempt, state in ((2, "waiting"), (3, "succeeded")):
        end_lease(running_under(queued_again(job_id)))
        assert row_of(job_id).attempt == attempt
        assert rescue(deps, Patience(0)) == 1
        assert row_of(job_id).state == state
    assert give_kept(deps) == 0
    assert query("SELECT kind, reason, attempt FROM ledger ORDER BY id") == [
        ("waste", "escalated", 1),
        ("waste", None, 2),
        ("waste", None, 3),
        ("waste", "kept", 1),
        ("compute", None, 1),
    ]


def test_past_its_deadline_the_answer_stands_too_if_its_worker_died(
    deps: ControlDeps,
    escalated: Callable[..., UUID],
    running_under: Callable[..., UUID],
    end_lease: Callable[[UUID], None],
    row_of: Row,
    query: Any,
    queued_again: Callable[[UUID], Ticket],
    store: Store,
) -> None:
    job_id = escalated(webhook_url="https://h.example/1")
    worker_id = running_under(queued_again(job_id))
    with store.begin() as db:
        db.execute(sa.update(jobs).where(jobs.c.id == job_id).values(finish_by=sa.func.now()))
    end_lease(worker_id)

    assert rescue(deps, Patience(0)) == 1

    assert (row_of(job_id).state, row_of(job_id).error_code) == ("succeeded", None)
    assert query("SELECT answer FROM job_texts WHERE job_id = :id", id=job_id) == [("No.",)]
    assert query("SELECT job_id FROM deliveries") == [(job_id,)]
    assert query("SELECT kind, reason, attempt FROM ledger ORDER BY id") == [
        ("waste", "escalated", 1),
        ("waste", None, 2),
        ("waste", "kept", 1),
        ("compute", None, 1),
    ]


@pytest.fixture
def queued_again(deps: ControlDeps, row_of: Row) -> Callable[[UUID], Ticket]:
    """Has `publish_due` queue a job that is due; returns its ticket."""

    def publish(job_id: UUID) -> Ticket:
        publish_due(deps)
        row = row_of(job_id)
        assert row.state == "queued"
        ticket = Ticket(row.id, row.app_id, row.queue, row.lane, row.prompt_tokens, row.max_tokens, row.start_by)
        return replace(ticket, enqueue_no=row.enqueue_no)

    return publish


def test_the_followers_of_an_escalated_job_are_given_the_better_answer(
    deps: ControlDeps,
    escalated: Callable[..., UUID],
    claim: Callable[..., Claim],
    make_spec: Callable[..., Any],
    queued_again: Callable[[UUID], Ticket],
    store: Store,
    row_of: Row,
    query: Any,
) -> None:
    leader = escalated(cache_key=b"key")
    spec = make_spec(rule="short", pool="fast", model="small")
    assert exact_cache.follow(store, [Follower(spec, leader, "fast.normal")])
    assert settle_followers(deps) == 0

    held = claim(leader, queued_again(leader).enqueue_no)
    with store.begin() as db:
        assert one_attempt.finish(db, held, JobState.SUCCEEDED, replace(FIRST, text="Yes.", model_served="large-1"))
    assert settle_followers(deps) == 1

    assert (row_of(spec.id).state, row_of(spec.id).model_served) == ("succeeded", "large-1")
    assert query("SELECT answer FROM job_texts WHERE job_id = :id", id=spec.id) == [("Yes.",)]
