"""What is written down about the queues, and what is decided from it."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from api.door.refusals import RefusalCounts
from headrace.broker.admission import Admission
from headrace.domain.apps import UNLIMITED, App
from headrace.domain.ids import new_id, oldest_id
from headrace.domain.places import Ask, RefusalCount, RefusalKey
from headrace.domain.queues import Candidate, Lane, Ticket
from headrace.errors import BrokerUnavailable
from headrace.policies.answers import BOUNDS, ExpectedOutput, to_fields
from headrace.policies.forecasting import LaneRates, PoolRates, from_json
from headrace.policies.scaling.decisions import from_json as inputs_from_json
from headrace.policies.scaling.decisions import replay
from headrace.store import Store
from headrace.store.fleet import history, observations
from scheduler.autoscale import autoscale
from scheduler.deps import ControlDeps
from scheduler.observe import observe

QUEUE = "chat.normal"


def test_a_sample_says_how_each_queue_stands(
    deps: ControlDeps,
    queued: Callable[..., Ticket],
    running_under: Any,
    admission: Admission,
    query: Any,
    age: Any,
) -> None:
    waiting, running = queued(), queued()
    running_under(running)
    admission.commit([waiting])
    age(waiting.job_id, timedelta(seconds=20))
    assert observe(deps) == len(deps.queues) == 8
    facts = "depth, arrivals, started, running, slots, hosts, oldest_wait_s BETWEEN 20 AND 25"
    assert query(f"SELECT {facts} FROM queue_samples WHERE queue = :queue", queue=QUEUE) == [(1, 1, 1, 1, 32, 1, True)]
    assert query("SELECT depth, running, slots FROM queue_samples WHERE queue = 'overflow.high'") == [(0, 0, 0)]


def test_counts_are_since_the_sample_before(deps: ControlDeps, queued: Callable[..., Ticket], query: Any) -> None:
    queued()
    observe(deps)
    query("UPDATE queue_samples SET at = at - interval '5 s'")
    query("UPDATE jobs SET created_at = created_at - interval '6 s'")
    queued()
    observe(deps)
    arrivals = query("SELECT arrivals FROM queue_samples WHERE queue = :queue ORDER BY at", queue=QUEUE)
    assert arrivals == [(1,), (1,)]


def test_samples_go_on_after_the_clock_was_ahead(deps: ControlDeps, queued: Callable[..., Ticket], query: Any) -> None:
    observe(deps)
    query("UPDATE queue_samples SET at = at + interval '2 hours'")
    queued()

    assert observe(deps) == len(deps.queues)
    assert query("SELECT arrivals FROM queue_samples WHERE queue = :queue ORDER BY at LIMIT 1", queue=QUEUE) == [(1,)]


@pytest.mark.parametrize("skew", [timedelta(minutes=-30), timedelta(), timedelta(minutes=30)], ids=str)
@pytest.mark.parametrize(
    "change",
    [
        "state = 'queued'",
        "state = 'waiting', queued_at = NULL",
        "state = 'waiting', started_at = now()",
        "state = 'expired', ended_at = now()",
        "state = 'cancelled', started_at = now(), ended_at = now()",
    ],
)
def test_a_job_that_a_host_with_a_wrong_clock_named_counts_as_an_arrival_wherever_it_is(
    deps: ControlDeps, queued: Callable[..., Ticket], query: Any, skew: timedelta, change: str
) -> None:
    observe(deps)
    query("UPDATE queue_samples SET at = at - interval '5 s'")
    named_at = oldest_id(datetime.now(UTC) + skew).int | (new_id().int & ((1 << 80) - 1))
    ticket = queued(id=UUID(int=named_at))
    query(f"UPDATE jobs SET {change} WHERE id = :id", id=ticket.job_id)

    observe(deps)

    arrivals = query("SELECT arrivals FROM queue_samples WHERE queue = :queue ORDER BY at", queue=QUEUE)
    assert arrivals == [(0,), (1,)]


def test_each_refusal_is_counted_in_one_sample_however_late_it_was_written(
    deps: ControlDeps, query: Any, app: App, store: Store
) -> None:
    first, second = (RefusalCounts(store, deps.admission) for _ in range(2))

    def refuse(process: RefusalCounts, times: int) -> None:
        for _ in range(times):
            process.add(RefusalKey(app.id, QUEUE, "depth"), RefusalCount(1, 100, 60))

    def sample() -> None:
        query("UPDATE queue_samples SET at = at - interval '5 s'")
        observe(deps)

    refuse(first, 3)
    first.flush()
    sample()
    sample()
    # Another process adds to the same row, and one writes what it counted before the last sample.
    refuse(second, 4)
    refuse(first, 2)
    second.flush()
    sample()
    first.flush()
    sample()
    # A count that is written a minute later is in a row of its own.
    query("UPDATE refusals SET minute = minute - interval '1 minute'")
    refuse(first, 1)
    first.flush()
    sample()
    sample()

    refused = query("SELECT refused FROM queue_samples WHERE queue = :queue ORDER BY at", queue=QUEUE)
    assert [count for (count,) in refused] == [3, 0, 4, 2, 1, 0]
    assert query("SELECT sum(refused) FROM queue_samples WHERE queue <> :queue", queue=QUEUE) == [(0,)]
    for process in (first, second):
        process.close()


def test_a_count_that_is_just_being_written_is_in_the_next_sample(
    deps: ControlDeps, query: Any, app: App, store: Store
) -> None:
    def refuse(db: Any, num_jobs: int) -> None:
        observations.add_refusals(db, {RefusalKey(app.id, QUEUE, "depth"): RefusalCount(num_jobs, 100, 60)})

    with store.begin() as db:
        refuse(db, 5)
    with store.begin() as late:
        refuse(late, 2)
        observe(deps)
    query("UPDATE queue_samples SET at = at - interval '5 s'")
    observe(deps)
    refused = query("SELECT refused FROM queue_samples WHERE queue = :queue ORDER BY at", queue=QUEUE)
    assert [count for (count,) in refused] == [0, 7]


def test_the_doors_learn_how_fast_a_backed_up_pool_drains_and_what_arrives(
    deps: ControlDeps, queued: Callable[..., Ticket], running_under: Any, admission: Admission, query: Any
) -> None:
    admission.commit([queued()])
    observe(deps)
    query("UPDATE queue_samples SET at = at - interval '10 s'")
    query("UPDATE jobs SET created_at = created_at - interval '10 s'")
    running_under(*(queued() for _ in range(30)))
    # As many ran before, so that these took their places.
    query("UPDATE queue_samples SET slots = 32")
    query("UPDATE queue_samples SET running = 30 WHERE queue = :queue", queue=QUEUE)
    observe(deps)

    told = from_json(admission.outlook() or "")

    # 30 jobs of 8 prompt and 16 output tokens in 10 s, on 32 slots. A busy machine takes longer.
    [(seconds,)] = query("SELECT extract(epoch FROM max(at) - min(at))::float FROM queue_samples")
    assert seconds >= 10
    assert told["chat"].drain_tokens_per_s_per_slot == pytest.approx(30 * 24 / seconds / 32, rel=0.1)
    assert told["chat"].lanes == {Lane.NORMAL: LaneRates(pytest.approx(30 * 24 / seconds, rel=0.1), 24)}
    assert told["overflow"] == PoolRates(None)


def test_the_doors_learn_how_long_the_jobs_of_a_pool_with_a_latency_goal_run(
    deps: ControlDeps, queued: Callable[..., Ticket], running_under: Any, admission: Admission, query: Any
) -> None:
    tickets = [queued() for _ in range(3)]
    running_under(*tickets)
    ends = "state = 'succeeded', ended_at = started_at + interval '2 s', worker_id = NULL"
    query(f"UPDATE jobs SET {ends}, output_tokens = 10 WHERE id = :id", id=tickets[0].job_id)
    query(f"UPDATE jobs SET {ends}, output_tokens = 30 WHERE id = :id", id=tickets[1].job_id)
    goals = {"chat": deps.settings.pools["chat"].model_copy(update={"latency_goal_s": 2.0})}
    observe(replace(deps, settings=deps.settings.model_copy(update={"pools": goals})))

    assert from_json(admission.outlook() or "")["chat"].run_s_per_token == pytest.approx(4 / 40)


@pytest.mark.parametrize(
    "change",
    ["state = 'failed', output_tokens = 10", "output_tokens = 0", "route = 'overflow', output_tokens = 10"],
)
def test_a_run_time_is_learned_only_from_answers_of_the_pool_s_own(
    deps: ControlDeps, queued: Callable[..., Ticket], running_under: Any, query: Any, store: Store, change: str
) -> None:
    ticket = queued()
    running_under(ticket)
    ends = "state = 'succeeded', ended_at = started_at + interval '2 s', worker_id = NULL"
    query(f"UPDATE jobs SET {ends}, output_tokens = 10 WHERE id = :id", id=ticket.job_id)

    def learned(since: datetime) -> float | None:
        with store.begin() as db:
            return history.run_s_per_token(db, "chat", since)

    now = datetime.now(UTC)
    assert learned(now - timedelta(minutes=1)) == pytest.approx(0.2)
    assert learned(now + timedelta(minutes=1)) is None
    query(f"UPDATE jobs SET {change} WHERE id = :id", id=ticket.job_id)
    assert learned(now - timedelta(minutes=1)) is None


def test_what_waits_and_what_was_started_counts_by_how_long_answers_get(
    deps: ControlDeps, queued: Callable[..., Ticket], running_under: Any, store: Store, admission: Admission, query: Any
) -> None:
    # Each answer may have 16 tokens, and gets 4.
    output = ExpectedOutput(10**6, tuple(min(bound, 4.0) for bound in BOUNDS))
    running_under(queued())
    query("UPDATE workers SET expected_outputs = :learned", learned=json.dumps(to_fields({Lane.NORMAL: output})))
    one = queued()
    admission.reserve([Ask(one.job_id, one.app_id, 24, (Candidate(QUEUE, 500, 1000, None, "test"),), UNLIMITED, 12)])
    observe(deps)
    sample = "SELECT started_tokens, depth_tokens FROM queue_samples WHERE queue = :queue"
    assert query(sample, queue=QUEUE) == [(8 + 5, 12)], "an answer is rounded up"
    assert from_json(admission.outlook() or "")["chat"].outputs[Lane.NORMAL].within(16) == pytest.approx(4, abs=0.1)


def test_without_redis_there_is_no_sample(deps_without_redis: ControlDeps, query: Any) -> None:
    with pytest.raises(BrokerUnavailable):
        observe(deps_without_redis)
    assert query("SELECT count(*) FROM queue_samples") == [(0,)]


def test_a_decision_is_a_row_with_its_reason_and_what_it_was_made_of(
    deps: ControlDeps, running_under: Any, query: Any
) -> None:
    for _ in range(2):
        running_under()
    observe(deps)
    query("UPDATE queue_samples SET depth = 140 WHERE queue = :queue", queue=QUEUE)
    query("UPDATE workers SET host_id = name || id")
    decision = autoscale(deps)["chat"]
    why = "up: depth 140 is above 100 (thresholds decide: the rate of a host is unknown)"
    assert (decision.target, decision.reason) == (4, why)
    rows = query("SELECT pool, mode, hosts, target, reason, inputs FROM decisions")
    assert [row[:5] for row in rows] == [("chat", "advisory", 2, 4, decision.reason)]
    assert replay(inputs_from_json(rows[0][5])) == decision
    assert rows[0][5]["policy"]["up_depth"] == 100


def test_stale_samples_hold_the_fleet(deps: ControlDeps, running_under: Any, query: Any) -> None:
    for _ in range(3):
        running_under()
    query("UPDATE workers SET host_id = name || id")
    observe(deps)
    query("UPDATE queue_samples SET at = at - interval '5 minutes'")
    decision = autoscale(deps)["chat"]
    assert decision.target == 3
    # A busy machine takes a second between the two.
    assert re.match(r"hold: the newest sample is 30\d s old", decision.reason)


def test_a_pool_that_was_never_observed_gets_its_minimum(deps: ControlDeps) -> None:
    assert autoscale(deps)["chat"].target == deps.settings.scaling.min_hosts


def test_no_hosts_are_ordered_for_a_pool_that_the_paid_api_alone_answers(deps: ControlDeps, query: Any) -> None:
    paid = deps.settings.pools["chat"].model_copy(update={"engine": "openai"})
    pools = {"mini": paid, "chat": deps.settings.pools["chat"]}
    without = replace(deps, settings=deps.settings.model_copy(update={"pools": pools}))

    assert observe(without) == 8
    assert query("SELECT count(*) FROM queue_samples WHERE queue LIKE 'mini.%'") == [(0,)]
    assert autoscale(without).keys() == {"chat"}
