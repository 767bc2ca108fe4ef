"""A job whose stored prompt or answer cannot be read holds up no other job of any sweep, and the log names it.

Of the sweeps, `spill` reads prompts; `give_kept` and `rescue` read kept answers; `compare_shadows` reads formats. The
others move jobs without reading them. Look-ups are in `workers/matching`, lists of jobs in `headrace/store/jobs`.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from headrace.broker.admission import Admission
from headrace.config import BudgetSettings, PoolSettings, Price
from headrace.config.rules import RuleSettings
from headrace.domain.attempts import AttemptEnd, Claim, Escalation, Usage
from headrace.domain.fleet import WorkerInfo, WorkerReport
from headrace.domain.ids import new_id, show_id
from headrace.domain.limits import Cost
from headrace.domain.queues import Route, Ticket
from headrace.domain.states import JobState
from headrace.store import Store, escalations
from headrace.store.bad_rows import BadRows
from headrace.store.fleet import workers
from scheduler import sweep
from scheduler.deps import ControlDeps
from scheduler.learn import compare_shadows, start_shadows
from scheduler.rescue import Patience, rescue
from scheduler.spill import MOST_JOBS, spill
from scheduler.sweep import give_kept
from tests import one_attempt

#: What makes a payload unreadable, and what is said of it.
MALFORMED = "UPDATE job_texts SET sampling = '[]' WHERE job_id = :id"
TOO_NEW = """UPDATE job_texts SET sampling = sampling || '{"version": 9}' WHERE job_id = :id"""
PRICE = Price(input_usd_per_mtok=Decimal(10), output_usd_per_mtok=Decimal(100), source="test", version="v1")
ANSWERED = AttemptEnd(
    *("succeeded", 1.5, Cost(Decimal("0.25"), "v1"), "compute", Usage(9, 5)), text="No.", finish_reason="stop"
)
TO = Escalation("refusal", "chat", "large", "chat.normal", Route.POOL, "because", wait_s=0)

Named = Callable[[], list[tuple[str, str]]]


@pytest.fixture
def named(caplog: pytest.LogCaptureFixture) -> Named:
    """The sweep and the job of each row that was named so far."""
    return lambda: [(vars(each)["sweep"], vars(each)["job_id"]) for each in caplog.records if each.msg == "row_refused"]


@pytest.fixture
def paid(deps: ControlDeps, store: Store) -> ControlDeps:
    """With a paid API that has a price, a budget, and a worker."""
    info = WorkerInfo(new_id(), "overflow@test", "host", "overflow", "openai", "gpt-4o-mini", 8)
    with store.begin() as db:
        workers.register(db, info, deps.settings.lease_s)
        workers.renew(db, info.id, deps.settings.lease_s, WorkerReport(0, ready=True))
    budget = BudgetSettings(month_usd=Decimal(1_000_000))
    changes = {"openai_api_key": SecretStr("sk-test"), "prices": {"gpt-4o-mini": PRICE}, "budgets": budget}
    return replace(deps, settings=deps.settings.model_copy(update=changes))


@pytest.fixture
def late(queued: Callable[..., Ticket], age: Callable[[UUID, timedelta], None]) -> Callable[[int], list[Ticket]]:
    """Inserts this number of jobs that have 2 s left to start, the first one the least."""

    def insert(number: int) -> list[Ticket]:
        tickets = [queued() for _ in range(number)]
        for no, ticket in enumerate(tickets):
            age(ticket.job_id, timedelta(seconds=28 - no / 10))
        return tickets

    return insert


@pytest.mark.parametrize("way", [MALFORMED, TOO_NEW])
def test_spill_skips_and_names_it_and_spills_the_others(
    paid: ControlDeps, late: Any, query: Any, named: Named, way: str
) -> None:
    bad, *good = [ticket.job_id for ticket in late(3)]
    query(way, id=bad)
    kept = BadRows("spill")

    assert spill(paid, kept) == 2
    assert spill(paid, kept) == 0

    assert query("SELECT id FROM jobs WHERE route = 'overflow' ORDER BY id") == [(job_id,) for job_id in sorted(good)]
    assert named() == [("spill", show_id(bad))], "once, not with each sweep"


def test_a_batch_full_of_such_jobs_hides_none_behind_them(
    paid: ControlDeps, late: Any, query: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.spill.MOST_JOBS", 2)
    assert MOST_JOBS > 2
    tickets = late(3)
    for ticket in tickets[:2]:
        query(MALFORMED, id=ticket.job_id)
    kept = BadRows("spill")

    assert [spill(paid, kept) for _ in range(2)] == [0, 1]


@pytest.fixture
def waiting(queued: Callable[..., Ticket], claim: Callable[..., Claim], store: Store) -> Callable[[], UUID]:
    """Inserts a job that has an answer, and has waited long enough for a better one."""

    def insert() -> UUID:
        ticket = queued(rule="short", pool="fast", model="small")
        held = claim(ticket.job_id, 1)
        with store.begin() as db:
            assert escalations.escalate(db, held, ANSWERED, TO) is JobState.WAITING
        return ticket.job_id

    return insert


SPOILED = "UPDATE job_texts SET kept_answer = kept_answer - 'usd' WHERE job_id = :id"


def test_give_kept_skips_and_names_it_and_gives_the_others(
    deps: ControlDeps, waiting: Callable[[], UUID], query: Any, named: Named
) -> None:
    bad, good = waiting(), waiting()
    query(SPOILED, id=bad)

    assert give_kept(deps, BadRows("give_kept")) == 2

    assert query("SELECT id FROM jobs WHERE state = 'succeeded'") == [(good,)]
    assert named() == [("give_kept", show_id(bad))]


def test_rescue_skips_and_names_it_and_rescues_the_others(
    deps: ControlDeps,
    waiting: Callable[[], UUID],
    running_under: Callable[..., UUID],
    end_lease: Callable[[UUID], None],
    store: Store,
    query: Any,
    named: Named,
) -> None:
    bad, good = waiting(), waiting()
    query(SPOILED, id=bad)
    sweep.publish_due(deps)
    worker_id = running_under()
    with store.begin() as db:
        assert all(one_attempt.claim(db, job_id, 2, worker_id, "simulator") for job_id in (bad, good))
    end_lease(worker_id)
    deps = replace(deps, settings=deps.settings.model_copy(update={"max_attempts": 2}))

    assert rescue(deps, Patience(0), BadRows("rescue")) == 2

    assert query("SELECT id, state FROM jobs ORDER BY state") == [(bad, "running"), (good, "succeeded")]
    assert named() == [("rescue", show_id(bad))]


def test_compare_shadows_compares_the_others_and_one_with_a_malformed_format_as_text(
    deps: ControlDeps, queued: Callable[..., Ticket], claim: Callable[..., Claim], store: Store, query: Any
) -> None:
    pools = {"fast": PoolSettings(model="small"), "chat": PoolSettings(model="large")}
    rules = {"short": RuleSettings(pools=("fast", "chat"), shadow_share=1.0)}
    deps = replace(deps, settings=deps.settings.model_copy(update={"pools": pools, "rules": rules}))
    deep = replace(ANSWERED, text="[" * 100_000)
    ends = [ANSWERED, replace(ANSWERED, text="Yes."), deep]
    for end in ends:
        ticket = queued(rule="short", pool="fast", model="small", is_shadowed=True)
        with store.begin() as db:
            assert one_attempt.finish(db, claim(ticket.job_id, 1), JobState.SUCCEEDED, end)
    formats = ['"json"', "7", '{"type": "json_object"}']
    for (job_id,), stored in zip(query("SELECT id FROM jobs ORDER BY id"), formats, strict=True):
        change = "UPDATE job_texts SET sampling = sampling || jsonb_build_object('response_format', CAST(:f AS jsonb))"
        query(f"{change} WHERE job_id = :id", id=job_id, f=stored)
    assert start_shadows(deps) == 3
    for (shadow_id,) in query("SELECT id FROM jobs WHERE shadow = 'open'"):
        held = claim(shadow_id, 1)
        end = (
            deep
            if query("SELECT answer LIKE '[%' FROM job_texts WHERE job_id = :id", id=held.shadow_of)[0][0]
            else ANSWERED
        )
        with store.begin() as db:
            assert one_attempt.finish(db, held, JobState.SUCCEEDED, replace(end, kind="waste", reason="shadow"))

    assert compare_shadows(deps) == 3

    of_shadows = "SELECT shadow FROM jobs WHERE shadow_of IS NOT NULL ORDER BY shadow_of"
    assert query(of_shadows) == [("agrees",), ("differs",), ("differs",)]


def test_the_other_sweeps_move_it_unread(
    deps: ControlDeps,
    queued: Callable[..., Ticket],
    age: Any,
    query: Any,
    admission: Admission,
    in_list: Any,
    named: Named,
) -> None:
    """`publish_due`, `reconcile_admission`, `settle_followers`, `start_shadows`, `expire`, `forget_texts`."""
    tickets = [queued(is_shadowed=True), queued()]
    query("UPDATE job_texts SET messages = '7', sampling = '[]'")
    admission.restore(tickets[:1], 0.0)
    at_once = replace(deps, settings=deps.settings.model_copy(update={"publish_grace_s": 0.0}))

    assert sweep.publish_due(at_once) == 1
    assert sweep.reconcile_admission(at_once) == 0
    assert {job_id for job_id, _ in in_list("chat.normal")} == {ticket.job_id for ticket in tickets}
    query(
        "UPDATE jobs SET state = 'waiting', cache = 'shared', served_by_job = :leader WHERE id = :id",
        leader=tickets[0].job_id,
        id=tickets[1].job_id,
    )
    age(tickets[0].job_id, timedelta(seconds=31))
    assert sweep.expire(deps, BadRows("expire")) == 1
    assert start_shadows(deps) == 1
    assert sweep.settle_followers(deps, BadRows("settle_followers")) == 1
    age(tickets[1].job_id, timedelta(seconds=31))
    assert sweep.expire(deps, BadRows("expire")) == 1
    query("UPDATE job_texts SET is_unstored = true")
    query("UPDATE jobs SET ended_at = now() - interval '1 day'")
    assert sweep.forget_texts(deps) == 2

    assert query("SELECT DISTINCT state, error_code FROM jobs") == [("expired", "expired")]
    assert named() == []
