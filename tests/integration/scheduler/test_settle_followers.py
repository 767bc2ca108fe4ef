"""What becomes of jobs that follow another one, whatever becomes of that."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from redis import Redis

from headrace.domain.attempts import AttemptEnd, Claim, Usage
from headrace.domain.jobs import JobSpec
from headrace.domain.limits import Cost
from headrace.domain.queues import KEY_PREFIX, Lane, Ticket
from headrace.domain.states import JobState
from headrace.store import Store, jobs
from headrace.store.cache import exact_cache
from headrace.store.cache.exact_cache import Follower
from headrace.store.jobs import texts
from scheduler.deps import ControlDeps
from scheduler.rescue import Patience, rescue
from scheduler.sweep import cancel, expire, publish_due, settle_followers
from tests import one_attempt

TEXT = "Because of Rayleigh scattering."
KEY = b"key"

Follow = Callable[..., UUID]
Row = Callable[[UUID], Any]


@pytest.fixture
def leader(queued: Callable[..., Ticket]) -> Ticket:
    return queued(cache_key=KEY)


@pytest.fixture
def follow(store: Store, make_spec: Callable[..., JobSpec], leader: Ticket) -> Follow:
    """Inserts a job that follows the leader; returns its id."""

    def insert(**changes: Any) -> UUID:
        spec = make_spec(**changes)
        queue = f"chat.{spec.lane}"
        assert exact_cache.follow(store, [Follower(spec, leader.job_id, queue)]).keys() == {spec.id}
        return spec.id

    return insert


@pytest.fixture
def finish(store: Store, claim: Callable[..., Claim]) -> Callable[..., None]:
    """Ends a queued job as a worker would."""

    def end(job_id: UUID, enqueue_no: int = 1, state: JobState = JobState.SUCCEEDED, **changes: Any) -> None:
        values: dict[str, Any] = {"usage": Usage(9, 7, 2), "text": TEXT, "finish_reason": "stop", **changes}
        outcome = "succeeded" if state is JobState.SUCCEEDED else "failed"
        kind = "compute" if state is JobState.SUCCEEDED else "waste"
        with store.begin() as db:
            held = claim(job_id, enqueue_no)
            assert one_attempt.finish(
                db, held, state, AttemptEnd(outcome, 0.1, Cost(Decimal("0.5"), "v1"), kind, **values)
            )

    return end


def states(row_of: Row, *job_ids: UUID) -> list[str]:
    return [row_of(job_id).state for job_id in job_ids]


def test_followers_end_with_their_leader_each_with_a_bill_and_a_webhook(
    deps: ControlDeps, leader: Ticket, follow: Follow, finish: Callable[..., None], row_of: Row, query: Any
) -> None:
    ids = [follow(end_user=f"u{number}", webhook_url=f"https://h.example/{number}") for number in range(3)]
    assert settle_followers(deps) == 0
    finish(leader.job_id)

    assert settle_followers(deps) == 3

    assert states(row_of, *ids) == ["succeeded"] * 3
    assert query("SELECT answer, count(*) FROM job_texts GROUP BY 1") == [(TEXT, 4)]
    bills = "SELECT job_id, kind, usd, saved_usd, end_user FROM ledger WHERE kind = 'cache' ORDER BY job_id"
    assert query(bills) == [(job_id, "cache", 0, Decimal("0.5"), f"u{n}") for n, job_id in enumerate(ids)]
    assert query("SELECT job_id, event FROM deliveries ORDER BY job_id") == [
        (each, "response.completed") for each in ids
    ]
    assert settle_followers(deps) == 0
    assert query("SELECT count(*) FROM attempts") == [(1,)]


def test_publish_due_leaves_followers_alone(
    deps: ControlDeps, follow: Follow, row_of: Row, redis: Redis, query: Any
) -> None:
    follower = follow()
    query("UPDATE jobs SET created_at = created_at - interval '1 h'")
    publish_due(deps)
    assert states(row_of, follower) == ["waiting"]
    assert not redis.hexists(f"{KEY_PREFIX}waiting", follower.hex)


def test_a_leader_that_is_cancelled_leaves_its_followers_another(
    deps: ControlDeps, leader: Ticket, follow: Follow, finish: Callable[..., None], row_of: Row, query: Any
) -> None:
    low, high, other = follow(lane=Lane.LOW), follow(lane=Lane.HIGH), follow()
    cancel(deps, leader.job_id, "ada")

    assert settle_followers(deps) == 3
    assert (row_of(high).served_by_job, row_of(high).cache) == (None, "miss")
    assert [row_of(each).served_by_job for each in (low, other)] == [high, high]
    assert query(
        "SELECT job_id FROM job_texts WHERE cache_key = :key AND job_id <> :old", key=KEY, old=leader.job_id
    ) == [(high,)]
    publish_due(deps)
    assert states(row_of, low, high, other) == ["waiting", "queued", "waiting"]
    finish(high, 2)
    assert settle_followers(deps) == 2
    assert states(row_of, low, high, other) == ["succeeded"] * 3
    assert query("SELECT count(*) FROM ledger WHERE kind = 'compute'") == [(1,)]


def test_the_claims_of_a_follower_that_leads_are_numbered_after_the_old_leader_s(
    deps: ControlDeps, leader: Ticket, follow: Follow, row_of: Row, query: Any
) -> None:
    """Their numbers begin those of the stream's events. Readers of the old leader's stream come back to this one."""
    follower = follow()
    query("UPDATE jobs SET enqueue_no = 3 WHERE id = :id RETURNING 1", id=leader.job_id)
    cancel(deps, leader.job_id, "ada")
    assert settle_followers(deps) == 1
    publish_due(deps)
    assert (states(row_of, follower), row_of(follower).enqueue_no) == (["queued"], 4)


@pytest.mark.parametrize(
    ("code", "becomes"),
    [("engine_error", "queued"), ("run_timeout", "queued"), ("prompt_rejected", "failed"), ("engine_crash", "failed")],
)
def test_an_error_that_each_attempt_would_meet_is_shared_and_any_other_is_tried_again(
    deps: ControlDeps,
    leader: Ticket,
    follow: Follow,
    finish: Callable[..., None],
    row_of: Row,
    query: Any,
    code: str,
    becomes: str,
) -> None:
    first, second = follow(webhook_url="https://h.example/"), follow()
    query("UPDATE jobs SET suspicion = 1 WHERE id = :id", id=leader.job_id)
    finish(leader.job_id, state=JobState.FAILED, error_code=code, error_message="Not so.", finish_reason=None)
    settle_followers(deps)
    publish_due(deps)
    row = row_of(first)
    assert row.state == becomes
    if becomes == "failed":
        assert (row.error_code, row.error_message) == (code, "Not so.")
        assert states(row_of, second) == ["failed"]
        assert query("SELECT event FROM deliveries") == [("response.failed",)]
    else:
        assert (row.suspicion, row.error_code) == (1, None)
        assert (row_of(second).state, row_of(second).served_by_job) == ("waiting", first)


def test_a_leader_whose_worker_dies_is_run_again_and_keeps_its_followers(
    deps: ControlDeps,
    store: Store,
    leader: Ticket,
    follow: Follow,
    claim: Callable[..., Claim],
    finish: Callable[..., None],
    row_of: Row,
    query: Any,
) -> None:
    ids = [follow() for _ in range(3)]
    claim(leader.job_id, 1)
    query("UPDATE workers SET lease_until = now() - interval '1 s'")
    patience = Patience(0.0)
    rescue(deps, patience)
    assert rescue(deps, patience) + 1
    assert states(row_of, leader.job_id, *ids) == ["waiting", *["waiting"] * 3]
    assert settle_followers(deps) == 0
    publish_due(deps)
    finish(leader.job_id, row_of(leader.job_id).enqueue_no)
    assert settle_followers(deps) == 3
    assert states(row_of, *ids) == ["succeeded"] * 3
    assert query("SELECT outcome FROM attempts ORDER BY number") == [("lost",), ("succeeded",)]


def test_an_answer_that_was_erased_meanwhile_is_made_again(
    deps: ControlDeps, store: Store, leader: Ticket, follow: Follow, finish: Callable[..., None], row_of: Row
) -> None:
    first, second = follow(), follow()
    finish(leader.job_id)
    with store.begin() as db:
        texts.erase(db, leader.app_id, leader.job_id)
    assert settle_followers(deps) == 2
    assert (row_of(first).served_by_job, row_of(second).served_by_job) == (None, first)


def test_a_follower_s_wait_ends_when_its_leader_starts(
    deps: ControlDeps,
    leader: Ticket,
    follow: Follow,
    claim: Callable[..., Claim],
    row_of: Row,
    age: Callable[[UUID, timedelta], None],
    store: Store,
) -> None:
    late, later = follow(), follow(max_wait_s=3600)
    age(late, timedelta(minutes=5))
    claim(leader.job_id, 1)
    assert expire(deps) == 0
    with store.begin() as db:
        assert not jobs.find(db, leader.app_id, late).is_over
    with store.begin() as db:
        assert jobs.expire(db, [late]) == []
    assert states(row_of, late, later) == ["waiting", "waiting"]


def test_a_follower_whose_leader_does_not_start_in_time_expires_alone(
    deps: ControlDeps, leader: Ticket, follow: Follow, row_of: Row, age: Callable[[UUID, timedelta], None]
) -> None:
    late, later = follow(), follow(max_wait_s=3600)
    age(late, timedelta(minutes=5))
    assert expire(deps) == 1
    assert states(row_of, leader.job_id, late, later) == ["queued", "expired", "waiting"]


def test_a_follower_that_leads_after_a_start_does_not_expire(
    deps: ControlDeps,
    leader: Ticket,
    follow: Follow,
    finish: Callable[..., None],
    row_of: Row,
    age: Callable[[UUID, timedelta], None],
) -> None:
    late = follow()
    age(late, timedelta(minutes=5))
    finish(leader.job_id, state=JobState.FAILED, error_code="run_timeout", finish_reason=None)
    settle_followers(deps)
    assert expire(deps) == 0
    publish_due(deps)
    assert states(row_of, late) == ["queued"]


def test_a_follower_that_leads_after_a_start_has_not_started_before_it_came(
    deps: ControlDeps, leader: Ticket, follow: Follow, finish: Callable[..., None], row_of: Row, query: Any
) -> None:
    early, later = follow(), follow(lane=Lane.LOW)
    finish(leader.job_id, state=JobState.FAILED, error_code="run_timeout", finish_reason=None)
    query("UPDATE jobs SET started_at = created_at - interval '1 min' WHERE id = :id", id=leader.job_id)
    settle_followers(deps)
    assert row_of(early).started_at == row_of(early).created_at
    with deps.store.begin() as db:
        assert jobs.find(db, leader.app_id, early).wait_s == 0
    assert states(row_of, early, later) == ["waiting", "waiting"]


def test_a_deadline_is_each_follower_s_own(
    deps: ControlDeps, leader: Ticket, follow: Follow, claim: Callable[..., Claim], row_of: Row, query: Any
) -> None:
    hasty, patient = follow(), follow()
    claim(leader.job_id, 1)
    query("UPDATE jobs SET finish_by = now() - interval '1 s' WHERE id = :id", id=hasty)
    assert expire(deps) == 1
    assert (row_of(hasty).error_code, *states(row_of, hasty, patient)) == ("deadline_exceeded", "failed", "waiting")


def test_a_reader_s_own_job_is_given_the_answer_and_no_other(
    store: Store, leader: Ticket, follow: Follow, finish: Callable[..., None], row_of: Row
) -> None:
    first, second = follow(), follow()
    finish(leader.job_id)
    with store.begin() as db:
        assert jobs.find(db, leader.app_id, first).is_leader_ended
        assert jobs.ended_among(db, [first, second]) == [first, second]
        assert exact_cache.serve_followers(db, exact_cache.with_ended_leader(db, first)) == [first]
    assert states(row_of, first, second) == ["succeeded", "waiting"]


def test_nobody_follows_a_job_that_has_ended_or_follows_itself_or_is_another_app_s(
    store: Store,
    leader: Ticket,
    follow: Follow,
    finish: Callable[..., None],
    make_spec: Callable[..., JobSpec],
) -> None:
    first = follow()
    assert exact_cache.follow(store, [Follower(make_spec(), first, "chat.normal")]) == {}
    finish(leader.job_id)
    assert exact_cache.follow(store, [Follower(make_spec(), leader.job_id, "chat.normal")]) == {}
