"""Shadows of a rule: which jobs get one, where it runs, what is compared, and what is left of it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from headrace.config import PoolSettings
from headrace.config.rules import RuleSettings
from headrace.domain.attempts import AttemptEnd, Claim, Usage
from headrace.domain.jobs import JobSpec
from headrace.domain.limits import Cost
from headrace.domain.prompts import Sampling
from headrace.domain.queues import Overflow, Ticket
from headrace.domain.states import JobState
from headrace.store import Store, jobs
from headrace.store.jobs import shadows, texts
from scheduler.deps import ControlDeps
from scheduler.learn import compare_shadows, start_shadows
from scheduler.sweep import publish_due
from tests import one_attempt

USD = Decimal("0.25")
FIRST = AttemptEnd(
    "succeeded", 1.5, Cost(USD, "v1"), "compute", Usage(9, 5), text="Spam", finish_reason="stop", model_served="small-1"
)
OTHER = replace(FIRST, kind="waste", reason="shadow", text="spam.", cost=Cost(Decimal("0.5"), "v2"))
Row = Callable[[UUID], Any]


@pytest.fixture
def deps(deps: ControlDeps) -> ControlDeps:
    """With a rule of two own pools, and one whose second pool is the paid API's."""
    pools = {
        "fast": PoolSettings(model="small"),
        "chat": PoolSettings(model="large", max_model_tokens=100),
        "paid": PoolSettings(model="gpt-4o", engine="openai"),
    }
    rules = {
        "short": RuleSettings(pools=("fast", "chat"), shadow_share=1.0),
        "paid": RuleSettings(pools=("fast", "paid"), shadow_share=1.0),
    }
    changes = {"pools": pools, "rules": rules, "openai_api_key": SecretStr("sk-test")}
    return replace(deps, settings=deps.settings.model_copy(update=changes))


@pytest.fixture
def answered(queued: Callable[..., Ticket], claim: Callable[..., Claim], store: Store) -> Callable[..., UUID]:
    """Inserts a job that wants a shadow, and has it answered by `fast`."""

    def make(**changes: Any) -> UUID:
        ticket = queued(**{"rule": "short", "pool": "fast", "model": "small", "is_shadowed": True, **changes})
        with store.begin() as db:
            assert one_attempt.finish(db, claim(ticket.job_id, 1), JobState.SUCCEEDED, FIRST)
        return ticket.job_id

    return make


@pytest.fixture
def run(store: Store, claim: Callable[..., Claim], row_of: Any) -> Callable[..., Claim]:
    """Has a worker answer a shadow."""

    def answer(shadow_id: UUID, end: AttemptEnd = OTHER, state: JobState = JobState.SUCCEEDED) -> Claim:
        held = claim(shadow_id, row_of(shadow_id).enqueue_no)
        with store.begin() as db:
            assert one_attempt.finish(db, held, state, end)
        return held

    return answer


@pytest.fixture
def shadow_of(query: Any) -> Callable[[UUID], UUID | None]:
    """The shadow of a job, if it has one."""

    def find(job_id: UUID) -> UUID | None:
        found = query("SELECT id FROM jobs WHERE shadow_of = :id", id=job_id)
        return found[0][0] if found else None

    return find


def test_a_shadow_asks_another_pool_the_same_and_is_compared_and_erased(
    deps: ControlDeps, answered: Callable[..., UUID], run: Any, row_of: Row, query: Any, in_list: Any, shadow_of: Any
) -> None:
    job_id = answered(end_user="u", metadata={"task": "classify"})
    assert start_shadows(deps) == 1
    assert start_shadows(deps) == 0

    shadow = row_of(shadow_of(job_id))
    assert (row_of(job_id).shadow, shadow.shadow, shadow.state) == ("started", "open", "queued")
    assert (shadow.pool, shadow.queue, shadow.model_requested, shadow.overflow) == (
        *("chat", "chat.batch", "large", "never"),
    )
    assert (shadow.rule, shadow.end_user, shadow.metadata, shadow.webhook_url) == (None, None, {}, None)
    publish_due(replace(deps, settings=deps.settings.model_copy(update={"publish_grace_s": 0.0})))
    assert in_list("chat.batch") == [(shadow.id, 2)]
    assert query("SELECT count(*), count(DISTINCT messages) FROM job_texts") == [(2, 1)]
    assert compare_shadows(deps) == 0

    held = run(shadow.id)
    assert held.shadow_of == job_id
    assert compare_shadows(deps) == 1

    assert row_of(shadow.id).shadow == "agrees"
    assert query("SELECT job_id FROM job_texts") == [(job_id,)]
    assert query("SELECT kind, reason, usd FROM ledger WHERE job_id = :id", id=shadow.id) == [
        ("waste", "shadow", Decimal("0.5"))
    ]
    assert row_of(shadow.id).usd == 0
    assert query("SELECT task, jobs, compared, agreed, agreement, shadow_usd, usd, waste_usd FROM routing_per_day") == [
        ("classify", 1, 1, 1, 1.0, Decimal("0.5"), USD, 0)
    ]


@pytest.mark.parametrize(
    ("end", "state", "verdict"),
    [
        (replace(OTHER, text="ham"), JobState.SUCCEEDED, "differs"),
        (replace(OTHER, text=None, error_code="engine_fault"), JobState.FAILED, "failed"),
    ],
)
def test_other_answers_differ_and_no_answer_is_no_difference(
    deps: ControlDeps,
    answered: Callable[..., UUID],
    run: Any,
    row_of: Row,
    shadow_of: Any,
    query: Any,
    end: AttemptEnd,
    state: JobState,
    verdict: str,
) -> None:
    job_id = answered()
    start_shadows(deps)
    run(shadow_of(job_id), end, state)
    assert compare_shadows(deps) == 1
    assert row_of(shadow_of(job_id)).shadow == verdict
    compared = int(verdict == "differs")
    assert query("SELECT compared, agreed FROM routing_per_day") == [(compared, 0)]


def test_json_is_compared_as_json(
    deps: ControlDeps, answered: Callable[..., UUID], run: Any, row_of: Row, shadow_of: Any, query: Any
) -> None:
    job_id = answered(sampling=Sampling(16, response_format={"type": "json_object"}))
    query("""UPDATE job_texts SET answer = '{"a": 1, "b": 2}' WHERE job_id = :id""", id=job_id)
    start_shadows(deps)
    run(shadow_of(job_id), replace(OTHER, text='{"b":2,"a":1}'))
    compare_shadows(deps)
    assert row_of(shadow_of(job_id)).shadow == "agrees"


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE jobs SET rule = 'gone'",
        "UPDATE jobs SET state = 'failed'",
        "UPDATE jobs SET finish_reason = 'abort'",
        "UPDATE jobs SET served_by_job = id",
        "UPDATE jobs SET stand_by = now()",
        "UPDATE jobs SET ended_at = now() - interval '1 hour'",
        "UPDATE jobs SET route = 'overflow'",
        "UPDATE jobs SET pool = 'gone'",
        "UPDATE jobs SET max_tokens = 200",
        "DELETE FROM job_texts",
    ],
)
def test_what_cannot_be_compared_has_no_shadow(
    deps: ControlDeps, answered: Callable[..., UUID], row_of: Row, shadow_of: Any, query: Any, sql: str
) -> None:
    job_id = answered()
    query(sql)
    assert start_shadows(deps) == 1
    assert (row_of(job_id).shadow, shadow_of(job_id)) == ("skipped", None)


def test_a_job_that_is_not_in_the_sample_has_none(
    deps: ControlDeps, answered: Callable[..., UUID], row_of: Row
) -> None:
    job_id = answered(is_shadowed=False)
    assert start_shadows(deps) == 0
    assert row_of(job_id).shadow is None


def test_the_paid_api_is_asked_only_where_a_key_is_set_and_the_job_allows_it(
    deps: ControlDeps, answered: Callable[..., UUID], row_of: Row, shadow_of: Any
) -> None:
    allowed, stays = (answered(rule="paid", overflow=overflow) for overflow in (Overflow.ALLOW, Overflow.NEVER))
    start_shadows(deps)
    shadow = row_of(shadow_of(allowed))
    # `only`: without the money it fails, and does not wait.
    assert (shadow.queue, shadow.route, shadow.overflow) == ("overflow.batch", "overflow", "only")
    assert shadow_of(stays) is None

    keyless = answered(rule="paid")
    start_shadows(replace(deps, settings=deps.settings.model_copy(update={"openai_api_key": None})))
    assert shadow_of(keyless) is None


def test_only_so_many_are_under_way(
    deps: ControlDeps, answered: Callable[..., UUID], row_of: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadows, "MOST_OPEN", 2)
    ids = [answered() for _ in range(3)]
    assert start_shadows(deps) == 2
    assert start_shadows(deps) == 0
    assert [row_of(job_id).shadow for job_id in ids] == ["started", "started", "wanted"]


def test_a_shadow_does_not_outlive_the_texts_of_its_job(
    deps: ControlDeps,
    answered: Callable[..., UUID],
    running_under: Callable[..., UUID],
    store: Store,
    make_spec: Callable[..., JobSpec],
    row_of: Row,
    shadow_of: Any,
    query: Any,
) -> None:
    waiting, running = answered(), answered()
    start_shadows(deps)
    with store.begin() as db:
        app_id = row_of(shadow_of(running)).app_id
        running_under(jobs.find(db, app_id, shadow_of(running)).ticket)
    for job_id in (waiting, running):
        with store.begin() as db:
            texts.erase(db, row_of(job_id).app_id, job_id)

    assert row_of(shadow_of(waiting)).state == "cancelled"
    assert row_of(shadow_of(running)).cancel_requested_at is not None
    assert compare_shadows(deps) == 1
    assert query("SELECT job_id FROM job_texts") == [(shadow_of(running),)]


def test_an_app_sees_no_shadow(
    deps: ControlDeps, answered: Callable[..., UUID], store: Store, row_of: Row, shadow_of: Any, query: Any
) -> None:
    job_id = answered()
    start_shadows(deps)
    with store.begin() as db:
        assert [job.id for job in jobs.newest(db, row_of(job_id).app_id)] == [job_id]
    assert query("SELECT name FROM apps WHERE id = :id", id=row_of(shadow_of(job_id)).app_id) == [(shadows.APP,)]


def test_a_shadow_that_no_worker_takes_expires_and_costs_nothing(
    deps: ControlDeps, answered: Callable[..., UUID], store: Store, row_of: Row, shadow_of: Any, age: Any
) -> None:
    job_id = answered()
    start_shadows(deps)
    age(shadow_of(job_id), timedelta(seconds=shadows.MAX_WAIT_S + 1))
    with store.begin() as db:
        jobs.expire(db, [shadow_of(job_id)])
    assert compare_shadows(deps) == 1
    assert (row_of(shadow_of(job_id)).state, row_of(shadow_of(job_id)).shadow) == ("expired", "failed")
