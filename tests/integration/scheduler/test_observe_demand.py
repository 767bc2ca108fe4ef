"""Each sample says what a queue was asked for, whatever became of it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from headrace.domain.apps import App
from headrace.domain.attempts import AttemptEnd, Claim
from headrace.domain.ids import new_id
from headrace.domain.jobs import JobSpec
from headrace.domain.limits import Cost
from headrace.domain.places import ROOM_REASONS, RefusalCount, RefusalKey
from headrace.domain.queues import Candidate, Overflow, Ticket
from headrace.domain.states import JobState
from headrace.store import Store, attempts
from headrace.store.cache import exact_cache
from headrace.store.cache.exact_cache import Hit, Question
from headrace.store.fleet import observations
from headrace.store.jobs import overview
from headrace.store.jobs import queued as spills
from headrace.store.jobs.insertion import insert_batch
from scheduler.deps import ControlDeps
from scheduler.observe import observe
from tests import one_attempt

QUEUE = "chat.normal"
#: 8 prompt tokens and at most 16 of the answer: nothing was learned, so that the most is expected.
TOKENS = 24
NOTHING = AttemptEnd("failed", 0.1, Cost(Decimal(0), "v1"), "waste")

Sampled = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def sampled(deps: ControlDeps, query: Any) -> Sampled:
    """Observes once more, and returns these columns of a queue's new sample. There is a first sample to begin with."""
    hasty = replace(deps, settings=deps.settings.model_copy(update={"observe_every_s": 0.001}))

    def look(columns: str, queue: str = QUEUE) -> tuple[Any, ...]:
        assert observe(hasty)
        newest = f"SELECT {columns} FROM queue_samples WHERE queue = :queue ORDER BY at DESC LIMIT 1"
        [row] = query(newest, queue=queue)
        return tuple(row)

    look("at")
    return look


@pytest.fixture
def at_the_door(store: Store, make_spec: Callable[..., JobSpec]) -> Callable[..., None]:
    """Inserts a job that the door sends to the paid API."""

    def insert(**changes: Any) -> None:
        spec = make_spec(**changes)
        insert_batch(store, [(spec, Candidate(f"overflow.{spec.lane}", 1, 1, None, "own queue full"))])

    return insert


def test_what_was_accepted_refused_for_room_or_spilled_at_the_door_is_offered_once(
    store: Store, app: App, queued: Callable[..., Ticket], at_the_door: Callable[..., None], sampled: Sampled
) -> None:
    refused = 2 * len(ROOM_REASONS)
    with store.begin() as db:
        of_each = RefusalCount(2, 100, 60)
        observations.add_refusals(db, {RefusalKey(app.id, QUEUE, reason): of_each for reason in ROOM_REASONS})
    queued()
    at_the_door()
    columns = "arrivals, refused, spilled, offered, offered_tokens"
    tokens = 2 * TOKENS + 60 * len(ROOM_REASONS)
    assert sampled(columns) == (1, refused, 1, 2 + refused, tokens)
    assert sampled(columns) == (0, 0, 0, 0, 0)


def test_what_the_paid_api_took_for_a_pool_is_no_demand_of_its_own(
    at_the_door: Callable[..., None], sampled: Sampled
) -> None:
    at_the_door()
    assert sampled("arrivals, offered, spilled", "overflow.normal") == (1, 0, 0)


@pytest.mark.parametrize("reason", ["app_jobs", "requests_per_minute", "tokens_per_minute", "budget"])
def test_what_an_apps_own_limits_refuse_is_not_offered(
    store: Store, app: App, sampled: Sampled, query: Any, reason: str
) -> None:
    with store.begin() as db:
        observations.add_refusals(db, {RefusalKey(app.id, QUEUE, reason): RefusalCount(3, 100, 60)})
    assert sampled("offered, offered_tokens, refused") == (0, 0, 0)
    assert query("SELECT sampled_jobs FROM refusals") == [(0,)]


def test_a_job_for_the_paid_api_alone_is_no_demand_for_its_pool(
    at_the_door: Callable[..., None], sampled: Sampled, query: Any
) -> None:
    at_the_door(overflow=Overflow.ONLY)
    assert sampled("offered, spilled") == (0, 0)
    assert query("SELECT queue, offered, spilled FROM queue_samples WHERE offered + spilled > 0") == [
        ("overflow.normal", 1, 0)
    ]


def test_a_job_that_a_sweep_spills_later_is_not_offered_again_and_spilled_once(
    store: Store, queued: Callable[..., Ticket], sampled: Sampled, query: Any
) -> None:
    ticket = queued()
    assert sampled("offered, spilled") == (1, 0)
    with store.begin() as db:
        [there] = spills.spill(db, [ticket], "own queue late")
    assert sampled("offered, spilled") == (0, 1)
    # The paid API turns it away, and a second sweep moves it there again.
    query("UPDATE jobs SET queue = 'chat.normal', route = 'pool', queued_at = now()")
    with store.begin() as db:
        spills.spill(db, [there], "own queue late")
    assert sampled("offered, spilled") == (0, 0)


def test_an_attempt_that_is_repeated_is_neither_offered_again_nor_finished(
    store: Store, queued: Callable[..., Ticket], sampled: Sampled, claim: Callable[..., Claim], query: Any
) -> None:
    ticket = queued()
    assert sampled("offered") == (1,)
    with store.begin() as db:
        attempts.retry(db, claim(ticket.job_id, 1), NOTHING, 0)
    query("UPDATE jobs SET state = 'queued', enqueue_no = 2, queued_at = now(), not_before = NULL")
    assert sampled("offered, started, finished") == (0, 1, 0)
    with store.begin() as db:
        assert one_attempt.finish(db, claim(ticket.job_id, 2), JobState.FAILED, NOTHING)
    assert sampled("offered, started, finished") == (0, 0, 1)
    assert sampled("finished") == (0,)


def test_a_job_whose_insert_commits_after_a_sample_is_in_the_next_one(
    store: Store, queued: Callable[..., Ticket], sampled: Sampled, query: Any
) -> None:
    ticket = queued()
    query("UPDATE jobs SET state = 'failed', ended_at = now()")
    assert sampled("offered") == (1,)
    with store.begin() as late:
        overview.retry(late, [ticket.job_id])
        assert sampled("offered") == (0,)
    assert sampled("offered, arrivals") == (1, 1)


def test_a_sample_counts_hosts_by_their_state(running_under: Any, sampled: Sampled, query: Any) -> None:
    running_under()
    query(
        "INSERT INTO hosts (id, pool, requested_at, ready_at, drain_at) VALUES"
        " ('new', 'chat', now(), NULL, NULL), ('old', 'chat', now(), now(), now()),"
        " ('other', 'else', now(), NULL, NULL)"
    )
    query(
        "INSERT INTO worker_samples (worker_id, pool, interval_s, running, waiting, steps, kv_use, prompt_tokens,"
        " output_tokens, preemptions) VALUES (gen_random_uuid(), 'chat', 5, 1, 0, 9, 0.25, 1, 1, 0)"
    )
    assert sampled("hosts, hosts_requested, hosts_draining, slots, kv_use") == (1, 1, 1, 32, 0.25)


def test_a_job_that_the_cache_serves_is_no_demand_and_no_work_done(
    store: Store,
    queued: Callable[..., Ticket],
    sampled: Sampled,
    claim: Callable[..., Claim],
    make_spec: Callable[..., JobSpec],
) -> None:
    ticket = queued(cache_key=b"key")
    end = AttemptEnd("succeeded", 0.1, Cost(Decimal(1), "v1"), "compute", text="Water.", finish_reason="stop")
    with store.begin() as db:
        assert one_attempt.finish(db, claim(ticket.job_id, 1), JobState.SUCCEEDED, end)
    assert sampled("offered, arrivals, started, finished") == (1, 1, 1, 1)

    question = Question(make_spec(cache_key=b"key"), 60.0, datetime.now(UTC))
    assert exact_cache.serve(store, [Hit(question, ticket.job_id, QUEUE)])

    assert sampled("offered, arrivals, started, finished") == (0, 0, 0, 0)


def refuse(store: Store, app_id: UUID, tokens: int, jobs: int = 1, *, is_repeat: bool = False) -> None:
    with store.begin() as db:
        observations.add_refusals(
            db, {RefusalKey(app_id, QUEUE, "depth", is_repeat): RefusalCount(jobs, tokens, tokens)}
        )


def test_a_request_that_is_repeated_is_discounted(store: Store, app: App, sampled: Sampled) -> None:
    refuse(store, app.id, 24)
    refuse(store, app.id, 4800, 200, is_repeat=True)
    columns = "offered, offered_tokens, refused, discounted, discounted_tokens"
    assert sampled(columns) == (1, 24, 1, 200, 4800)
    assert sampled(columns) == (0, 0, 0, 0, 0)


def test_beside_others_an_app_counts_for_a_multiple_of_what_it_was_served(
    store: Store, app: App, sampled: Sampled, query: Any
) -> None:
    other = new_id()

    def serve(app_id: UUID, tokens: int) -> None:
        query(
            "INSERT INTO ledger (app_id, job_id, kind, pool, prompt_tokens, usd, at) "
            "VALUES (:app_id, :job_id, 'compute', 'chat', :tokens, 0, now() - interval '59 minutes')",
            app_id=app_id,
            job_id=new_id(),
            tokens=tokens,
        )

    columns = "offered_tokens, discounted_tokens"
    refuse(store, app.id, 1_000_000, 100)
    assert sampled(columns) == (1_000_000, 0), "alone, it counts in full"

    serve(app.id, 3540)
    serve(other, 3540)
    refuse(store, app.id, 1_000_000, 100)
    # Each was served a token a second: ten times that, for the 3 s of which refusals are written in one go.
    offered, discounted = sampled(columns)
    assert offered == pytest.approx(30, abs=1)
    assert offered + discounted == 1_000_000

    refuse(store, app.id, 25)
    assert sampled(columns) == (25, 0)


def test_hits_of_a_cache_do_not_hide_what_an_app_was_served_before(
    store: Store, app: App, sampled: Sampled, query: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observations, "SERVED_ENTRIES", 3)
    entry = (
        "INSERT INTO ledger (app_id, job_id, kind, pool, prompt_tokens, usd, at) "
        "VALUES (:app_id, :job_id, :kind, 'chat', 3540, 0, now() - interval '59 minutes')"
    )
    for app_id, kind in ((app.id, "compute"), *[(app.id, "cache")] * 4, (new_id(), "compute")):
        query(entry, app_id=app_id, job_id=new_id(), kind=kind)

    refuse(store, app.id, 25)

    assert sampled("offered_tokens, discounted_tokens") == (25, 0)
