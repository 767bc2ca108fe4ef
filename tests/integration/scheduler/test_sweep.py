"""Each crash window is opened, and the sweep that is named for it closes it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from redis import Redis

from headrace.broker.admission import Admission, books_key
from headrace.broker.messages import list_key, named_in
from headrace.broker.news import News, channel_of
from headrace.domain.ids import new_id, show_id
from headrace.domain.places import Ask, Load, Place
from headrace.domain.prompts import Message
from headrace.domain.queues import WEBHOOKS, Candidate, Ticket, bell_key
from headrace.errors import BrokerUnavailable
from headrace.logging import NAMED_JOBS
from headrace.store.jobs import overview
from scheduler import sweep
from scheduler.deps import ControlDeps
from tests.integration.listening import next_message

QUEUE = "chat.normal"
CHANNEL = channel_of(new_id())
LONG = timedelta(seconds=10)
PAST_START_BY = timedelta(seconds=31)
HOOK = "https://receiver.example/hook"
NOTHING = Load(0, 0, 0, 0)

Queued = Callable[..., Ticket]
Age = Callable[[UUID, timedelta], None]
InList = Callable[[str], list[tuple[UUID, int]]]


def test_a_job_inserted_but_never_pushed_gets_its_message(
    deps: ControlDeps, queued: Queued, age: Age, in_list: InList
) -> None:
    ticket = queued()
    assert sweep.publish_due(deps) == 0, "within the grace its own API process may still push it"
    age(ticket.job_id, LONG)
    assert sweep.publish_due(deps) == 1
    assert in_list(QUEUE) == [(ticket.job_id, 2)]


def test_publish_due_pushes_nothing_twice(
    deps: ControlDeps, queued: Queued, in_list: InList, admission: Admission, query: Any
) -> None:
    ticket = queued()
    admission.commit([ticket])
    query("UPDATE jobs SET queued_at = now() - interval '10 s'")
    assert [sweep.publish_due(deps), sweep.publish_due(deps)] == [0, 0]
    assert in_list(QUEUE) == [(ticket.job_id, 1)]


def test_a_job_that_an_operator_retries_gets_its_message_and_runs(
    deps: ControlDeps, queued: Queued, age: Age, in_list: InList, claim: Any, query: Any
) -> None:
    failed = queued()
    query("UPDATE jobs SET state = 'failed', ended_at = now()")
    with deps.store.begin() as db:
        [new] = overview.retry(db, [failed.job_id]).values()
    age(new, LONG)
    assert sweep.publish_due(deps) == 1
    assert in_list(QUEUE) == [(new, 2)]
    assert claim(new, 2).messages == (Message("user", "What is a headrace?"),)


def test_a_wiped_redis_is_rebuilt_in_the_order_of_acceptance(
    deps: ControlDeps, queued: Queued, age: Age, in_list: InList, admission: Admission, redis: Redis
) -> None:
    tickets = [queued() for _ in range(5)]
    for seconds, ticket in enumerate(reversed(tickets), start=10):
        admission.commit([ticket])
        age(ticket.job_id, timedelta(seconds=seconds))
    redis.flushall()
    assert sweep.publish_due(deps) == 5
    assert in_list(QUEUE) == [(ticket.job_id, 2) for ticket in tickets]


def test_a_retry_is_queued_under_a_new_number_once_it_is_due(
    deps: ControlDeps, queued: Queued, in_list: InList, query: Any, row_of: Any
) -> None:
    ticket = queued()
    query("UPDATE jobs SET state = 'waiting', not_before = now() + interval '1 hour'")
    sweep.publish_due(deps)
    assert (row_of(ticket.job_id).state, in_list(QUEUE)) == ("waiting", [])
    query("UPDATE jobs SET not_before = now()")
    sweep.publish_due(deps)
    row = row_of(ticket.job_id)
    assert (row.state, row.enqueue_no, row.not_before) == ("queued", 2, None)
    assert in_list(QUEUE) == [(ticket.job_id, 2)]


def test_a_retry_queued_while_redis_is_down_is_pushed_when_it_is_back(
    deps: ControlDeps, deps_without_redis: ControlDeps, queued: Queued, age: Age, in_list: InList, query: Any
) -> None:
    ticket = queued()
    query("UPDATE jobs SET state = 'waiting', not_before = now()")
    with pytest.raises(BrokerUnavailable):
        sweep.publish_due(deps_without_redis)
    assert query("SELECT state, enqueue_no FROM jobs") == [("queued", 2)]
    age(ticket.job_id, LONG)
    assert sweep.publish_due(deps) == 1
    assert in_list(QUEUE) == [(ticket.job_id, 3)]


def test_a_job_past_start_by_expires_at_no_cost_and_frees_its_place(
    deps: ControlDeps, queued: Queued, age: Age, in_list: InList, admission: Admission, row_of: Any, query: Any
) -> None:
    late, other = queued(), queued()
    age(late.job_id, timedelta(seconds=29))
    assert sweep.expire(deps) == 0
    age(late.job_id, timedelta(seconds=2))
    late = replace(late, start_by=row_of(late.job_id).start_by)
    admission.commit([late])
    admission.commit([other])
    assert sweep.expire(deps) == 1
    row = row_of(late.job_id)
    assert (row.state, row.error_code, row.usd) == ("expired", "expired", 0)
    assert row.ended_at is not None
    assert query("SELECT count(*) FROM ledger") == [(0,)]
    assert in_list(QUEUE) == [(other.job_id, 1)]


def test_a_started_job_does_not_expire_at_start_by(deps: ControlDeps, queued: Queued, age: Age, query: Any) -> None:
    ticket = queued()
    age(ticket.job_id, PAST_START_BY)
    query("UPDATE jobs SET started_at = now()")
    assert sweep.expire(deps) == 0


@pytest.mark.parametrize("state", ["queued", "waiting"])
def test_a_job_past_finish_by_fails(deps: ControlDeps, queued: Queued, row_of: Any, query: Any, state: str) -> None:
    ticket = queued(deadline=datetime.now(UTC) + timedelta(hours=1))
    query("UPDATE jobs SET state = :state, not_before = now() + interval '1 day'", state=state)
    assert sweep.expire(deps) == 0
    query("UPDATE jobs SET finish_by = now()")
    assert sweep.expire(deps) == 1
    row = row_of(ticket.job_id)
    assert (row.state, row.error_code) == ("failed", "deadline_exceeded")


def test_an_expired_job_wakes_its_readers_and_sends_its_webhook(
    deps: ControlDeps, queued: Queued, age: Age, redis: Redis, query: Any
) -> None:
    ticket = queued(webhook_url=HOOK)
    age(ticket.job_id, PAST_START_BY)
    with redis.pubsub() as listener:
        listener.subscribe(CHANNEL)
        assert next_message(listener)["type"] == "subscribe"
        News(redis).listen([ticket.job_id], CHANNEL)
        sweep.expire(deps)
        assert next_message(listener)["data"] == f"ended {ticket.job_id.hex}"
    assert query("SELECT event, state FROM deliveries") == [("response.failed", "pending")]
    assert redis.xlen(bell_key(WEBHOOKS)) == 1


def test_jobs_expire_while_redis_is_down_and_their_places_are_freed_later(
    deps: ControlDeps, deps_without_redis: ControlDeps, queued: Queued, age: Age, in_list: InList, admission: Admission
) -> None:
    ticket = queued()
    admission.commit([ticket])
    age(ticket.job_id, PAST_START_BY)
    with pytest.raises(BrokerUnavailable):
        sweep.expire(deps_without_redis)
    assert in_list(QUEUE) == [(ticket.job_id, 1)]
    assert sweep.expire(deps) == 0, "it has ended already"
    assert sweep.reconcile_admission(deps) == 1
    assert in_list(QUEUE) == []
    assert admission.loads([QUEUE]) == {QUEUE: NOTHING}


def test_a_place_reserved_for_no_job_is_freed_when_its_time_is_over(
    deps: ControlDeps, admission: Admission, redis: Redis
) -> None:
    admission.reserve([Ask(new_id(), new_id(), 10, (Candidate(QUEUE, 500, 1000, None, "test"),))])
    assert sweep.reconcile_admission(deps) == 0, "its job may still be on the way"
    reservations = books_key("reservations", QUEUE)
    redis.zadd(reservations, dict.fromkeys(redis.zrange(reservations, 0, -1), 1))
    assert sweep.reconcile_admission(deps) == 1
    assert admission.loads([QUEUE]) == {QUEUE: NOTHING}


def test_messages_that_stand_for_no_queued_job_are_taken_out(
    deps: ControlDeps, queued: Queued, in_list: InList, admission: Admission, redis: Redis, query: Any
) -> None:
    live, ended, requeued = queued(), queued(), queued()
    never = Ticket(new_id(), live.app_id, QUEUE, live.lane, 8, 16, live.start_by)
    for ticket in (live, ended, requeued, never):
        admission.commit([ticket])
    redis.lpush(list_key(QUEUE), "not one of ours")
    query("UPDATE jobs SET state = 'cancelled', ended_at = now() WHERE id = :id", id=ended.job_id)
    query("UPDATE jobs SET enqueue_no = 2 WHERE id = :id", id=requeued.job_id)
    assert sweep.reconcile_admission(deps) == 2, "the one that came back will have a place of its own"
    assert redis.lrem(list_key(QUEUE), 0, "not one of ours") == 1, "what is not ours is left alone"
    assert in_list(QUEUE) == [(live.job_id, 1)]


@pytest.mark.parametrize("is_taken", [True, False])
def test_a_row_that_a_crash_of_postgres_lost_leaves_neither_a_message_nor_a_place(
    deps: ControlDeps,
    queued: Queued,
    in_list: InList,
    admission: Admission,
    redis: Redis,
    query: Any,
    claim: Any,
    is_taken: bool,
) -> None:
    ticket = queued(stream=True)
    admission.commit([ticket])
    # As after a crash before the row was on disk.
    query("DELETE FROM job_texts")
    query("DELETE FROM jobs")
    if is_taken:
        redis.rpop(list_key(QUEUE))
        assert not claim(ticket.job_id, 1)
    assert sweep.reconcile_admission(deps) == 1
    assert in_list(QUEUE) == []
    assert admission.loads([QUEUE]) == {QUEUE: NOTHING}


@pytest.mark.parametrize("heard", [True, False])
def test_a_claimed_jobs_place_is_freed_though_its_worker_died_before_it_told_the_door(
    deps: ControlDeps, queued: Queued, admission: Admission, redis: Redis, claim: Any, heard: bool
) -> None:
    ticket = queued()
    admission.commit([ticket])
    redis.rpop(list_key(QUEUE))
    assert claim(ticket.job_id, 1)
    if heard:
        admission.leave([(ticket.job_id, 1)])
    assert sweep.reconcile_admission(deps) == (0 if heard else 1)
    assert admission.loads([QUEUE]) == {QUEUE: NOTHING}
    assert admission.leave([(ticket.job_id, 1)]) == 0


def test_a_job_that_a_worker_took_while_publish_due_looked_takes_no_place_and_has_no_message(
    deps: ControlDeps,
    queued: Queued,
    in_list: InList,
    admission: Admission,
    redis: Redis,
    claim: Any,
    query: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken, waiting = queued(), queued()
    query("UPDATE jobs SET queued_at = now() - interval '10 s'")
    restore = admission.restore

    def restore_too_late(tickets: list[Ticket], first: int) -> list[Ticket]:
        if not tickets:
            return []
        assert {ticket.job_id for ticket in tickets} == {taken.job_id, waiting.job_id}
        assert restore([ticket for ticket in tickets if ticket.job_id == taken.job_id], first)
        assert named_in(redis.rpop(list_key(QUEUE))) == (taken.job_id, 2)
        assert claim(taken.job_id, 2)
        assert admission.leave([(taken.job_id, 2)]) == 1
        return restore(tickets, first)

    monkeypatch.setattr(admission, "restore", restore_too_late)
    sweep.publish_due(deps)

    assert in_list(QUEUE) == [(waiting.job_id, 2)]
    assert admission.loads([QUEUE])[QUEUE].jobs == 1


def test_the_books_of_a_wiped_redis_are_rebuilt(
    deps: ControlDeps, queued: Queued, admission: Admission, redis: Redis, claim: Any, in_list: InList, query: Any
) -> None:
    running, *tickets = [queued() for _ in range(4)]
    asks = [Ask(new_id(), running.app_id, 10, (Candidate(QUEUE, 500, 1000, None, "test"),))]
    admission.commit([running, *tickets])
    redis.rpop(list_key(QUEUE))
    assert claim(running.job_id, 1)
    admission.leave([(running.job_id, 1)])
    before = admission.loads(deps.queues)
    admission.reserve(asks)
    query("UPDATE jobs SET queued_at = now() - interval '10 s' WHERE state = 'queued'")

    redis.flushall()
    assert sweep.publish_due(deps) == 3
    assert admission.loads(deps.queues) == before
    assert (sweep.publish_due(deps), sweep.reconcile_admission(deps)) == (0, 0)
    assert in_list(QUEUE) == [(ticket.job_id, 2) for ticket in tickets]
    assert isinstance(admission.reserve(asks)[0], Place), "a reservation that was lost can be made again"


def test_only_idempotency_keys_that_have_expired_are_forgotten(deps: ControlDeps, queued: Queued, query: Any) -> None:
    ticket = queued()
    insert = (
        "INSERT INTO idempotency_keys (app_id, key, request_hash, job_id, expires_at)"
        " VALUES (:app, :key, '', :job, now() + make_interval(secs => :left))"
    )
    for key, left in (("old", -1.0), ("live", 60.0)):
        query(insert, app=ticket.app_id, job=ticket.job_id, key=key, left=left)
    assert sweep.forget_keys(deps) == 1
    assert query("SELECT key FROM idempotency_keys") == [("live",)]


@pytest.fixture
def observed(query: Any) -> Callable[[int, int], None]:
    """Puts rows of an age in days into each table of samples, refusals and decisions."""
    insert = {
        "worker_samples": "(taken_at, worker_id, pool, interval_s, running, waiting, steps, prompt_tokens,"
        " output_tokens, preemptions) SELECT {at}, gen_random_uuid(), 'chat', 5, 0, 0, 0, 0, 0, 0",
        "refusals": "(minute, app_id, queue, reason, jobs, tokens)"
        " SELECT {at}, gen_random_uuid(), 'chat.normal', 'depth', 1, 1",
        "decisions": "(at, pool, mode, hosts, target, reason, inputs)"
        " SELECT {at}, 'chat', 'advisory', 1, 1, 'hold', '{{}}'",
    }

    def put(rows: int, days: int) -> None:
        at = "now() - make_interval(days => :days, secs => i)"
        for table, values in insert.items():
            query(f"INSERT INTO {table} {values.format(at=at)} FROM generate_series(1, :rows) i", rows=rows, days=days)

    return put


SAMPLED = ("worker_samples", "refusals", "decisions")


def test_only_samples_older_than_they_are_kept_are_forgotten(
    deps: ControlDeps, observed: Callable[[int, int], None], query: Any
) -> None:
    days = deps.settings.keep_samples_days
    observed(2, days)
    observed(3, days - 1)
    assert sweep.forget_samples(deps) == 2 * len(SAMPLED)
    assert sweep.forget_samples(deps) == 0
    assert [query(f"SELECT count(*) FROM {table}") for table in SAMPLED] == [[(3,)]] * len(SAMPLED)


def test_samples_are_forgotten_in_batches_the_oldest_first(
    deps: ControlDeps, observed: Callable[[int, int], None], query: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.store.fleet.observations.FORGET_ROWS", 2)
    observed(3, 40)
    observed(1, 50)
    assert [sweep.forget_samples(deps) for _ in range(3)] == [2 * len(SAMPLED)] * 2 + [0]
    observed(1, 50)
    observed(2, 40)
    sweep.forget_samples(deps)
    assert query("SELECT now() - min(taken_at) < interval '41 days', count(*) FROM worker_samples") == [(True, 1)]


def test_sweeps_name_the_jobs_they_touch_the_first_of_them_and_how_many(
    deps: ControlDeps, queued: Queued, age: Age, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    missing = [queued().job_id for _ in range(NAMED_JOBS + 1)]
    for job_id in missing:
        age(job_id, timedelta(seconds=10))
    sweep.publish_due(deps)
    for job_id in missing:
        age(job_id, timedelta(seconds=30))
    sweep.expire(deps)

    logged = {record.message: vars(record) for record in caplog.records}
    for event in ("messages_restored", "jobs_expired"):
        named = logged[event]["job_ids"]
        assert (logged[event]["jobs"], len(named)) == (NAMED_JOBS + 1, NAMED_JOBS)
        assert set(named) < set(map(show_id, missing))
