"""Two control processes: what one does, the other does not do again."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from threading import Barrier
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis import Redis

from headrace import connections
from headrace.domain.queues import WEBHOOKS, Ticket, bell_key
from headrace.errors import LockHeld
from headrace.store import Store
from headrace.store.fleet import history
from headrace.sweeper import Sweep, Sweeper
from scheduler import sweep
from scheduler.autoscale import autoscale
from scheduler.deps import ControlDeps
from scheduler.observe import observe
from scheduler.rescue import Patience, rescue
from tests.waiting import until

JOBS = 20
HOOK = "https://receiver.example/hook"


@pytest.fixture
def twins(deps: ControlDeps) -> Iterator[list[ControlDeps]]:
    """Two machines' deps, each with connections of its own."""
    engines = [connections.postgres(deps.settings) for _ in range(2)]
    yield [replace(deps, store=Store(engine)) for engine in engines]
    for engine in engines:
        engine.dispose()


def race(twins: list[ControlDeps], work: Callable[[ControlDeps], Any], rounds: int = 5) -> list[Any]:
    """Both do `work`, `rounds` times, each time from the same moment on."""
    barrier = Barrier(len(twins))

    def repeat(deps: ControlDeps) -> list[Any]:
        results = []
        for _ in range(rounds):
            barrier.wait(10)
            with suppress(LockHeld):
                results.append(work(deps))
        return results

    with ThreadPoolExecutor(len(twins)) as threads:
        return [result for results in threads.map(repeat, twins) for result in results]


def test_due_retries_are_queued_once(
    twins: list[ControlDeps], queued: Callable[..., Ticket], in_list: Any, query: Any
) -> None:
    tickets = [queued() for _ in range(JOBS)]
    query("UPDATE jobs SET state = 'waiting', not_before = now()")
    race(twins, sweep.publish_due)
    assert Counter(in_list("chat.normal")) == Counter((ticket.job_id, 2) for ticket in tickets)


def test_missing_messages_are_pushed_once(
    twins: list[ControlDeps], queued: Callable[..., Ticket], in_list: Any, age: Any
) -> None:
    tickets = [queued() for _ in range(JOBS)]
    for ticket in tickets:
        age(ticket.job_id, timedelta(seconds=10))
    assert sum(race(twins, sweep.publish_due)) == JOBS
    assert Counter(in_list("chat.normal")) == Counter((ticket.job_id, 2) for ticket in tickets)


def test_jobs_expire_once_with_one_webhook_each(
    twins: list[ControlDeps], queued: Callable[..., Ticket], age: Any, query: Any, redis: Redis
) -> None:
    for _ in range(JOBS):
        age(queued(webhook_url=HOOK).job_id, timedelta(seconds=31))
    assert sum(race(twins, sweep.expire)) == JOBS
    assert query("SELECT count(*) FROM deliveries") == [(JOBS,)]
    assert redis.xlen(bell_key(WEBHOOKS)) == 1


def test_a_lost_attempt_is_booked_once(
    twins: list[ControlDeps], queued: Callable[..., Ticket], running_under: Any, end_lease: Any, query: Any
) -> None:
    end_lease(running_under(*(queued() for _ in range(JOBS))))
    assert sum(race(twins, partial(rescue, patience=Patience(0)))) == JOBS
    assert query("SELECT count(*), count(DISTINCT job_id) FROM ledger") == [(JOBS, JOBS)]


def test_old_texts_are_erased_once(
    twins: list[ControlDeps], ended: Callable[..., Ticket], holding: Any, query: Any
) -> None:
    twins = [replace(each, settings=each.settings.model_copy(update={"keep_texts_days": 1})) for each in twins]
    for _ in range(JOBS):
        ended(1)
    with holding("forget_texts"), pytest.raises(LockHeld):
        sweep.forget_texts(twins[1])
    assert sum(race(twins, sweep.forget_texts)) == JOBS
    assert query("SELECT count(*) FROM job_texts") == [(0,)]


def test_a_sweep_whose_lock_is_held_is_counted_as_skipped_and_not_as_done(deps: ControlDeps, holding: Any) -> None:
    registry = CollectorRegistry()
    registry.register(deps.sweeps)

    def runs(outcome: str) -> float:
        return registry.get_sample_value("headrace_sweep_runs_total", {"sweep": "expire", "outcome": outcome}) or 0

    sweeper = Sweeper([Sweep("expire", 0.01, partial(sweep.expire, deps))], deps.sweeps.note)
    with holding("expire"):
        sweeper.start()
        until(lambda: runs("skipped") >= 3)
        assert runs("done") == 0
        assert registry.get_sample_value("headrace_sweep_done_timestamp_seconds", {"sweep": "expire"}) is None
    until(lambda: runs("done"))
    sweeper.stop()
    assert runs("failed") == 0


def test_two_beats_make_one_sample_and_ask_for_one_change(
    twins: list[ControlDeps], running_under: Any, query: Any
) -> None:
    race(twins, observe, rounds=1)
    observe(twins[0])
    assert set(query("SELECT count(*) FROM queue_samples GROUP BY queue")) == {(1,)}
    query("UPDATE queue_samples SET depth = 101")
    for _ in range(4):
        running_under()
    query("UPDATE workers SET host_id = name || id")
    race(twins, autoscale)
    assert query("SELECT target FROM decisions WHERE target <> hosts") == [(6,)]


@pytest.mark.parametrize("work", [history.roll_up, sweep.roll_up_samples])
def test_samples_are_rolled_up_once_even_without_the_lock(
    twins: list[ControlDeps], query: Any, work: Callable[[Any], int]
) -> None:
    put_samples(query, timedelta(days=8), number=200)

    def roll_up(deps: ControlDeps) -> int:
        if work is sweep.roll_up_samples:
            return work(deps)
        with deps.store.begin() as db:
            return work(db)

    assert sum(race(twins, roll_up)) == 200 + 4
    assert query("SELECT span_s, sum(samples), sum(offered) FROM queue_rollups GROUP BY 1") == [(3600, 200, 200)]


def put_samples(query: Any, age: timedelta, number: int) -> None:
    """Writes a sample for each second of an hour, with one job each."""
    query(
        "INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts,"
        " offered) SELECT 'chat.normal', date_trunc('hour', now() - :age) + make_interval(secs => i), 0, 0, 0, 0, 0, 0,"
        " 0, 0, 1 FROM generate_series(1, :number) i",
        age=age,
        number=number,
    )


@pytest.mark.parametrize(
    "work",
    [sweep.publish_due, sweep.expire, sweep.forget_keys, sweep.forget_samples, sweep.roll_up_samples, observe],
)
def test_nothing_is_done_or_waited_for_while_another_process_does_it(
    deps: ControlDeps,
    queued: Callable[..., Ticket],
    holding: Any,
    age: Any,
    work: Callable[[ControlDeps], int],
    query: Any,
) -> None:
    age(queued(webhook_url=HOOK).job_id, timedelta(seconds=31))
    query(
        "INSERT INTO decisions (at, pool, mode, hosts, target, reason, inputs)"
        " VALUES (now() - interval '1 year', 'chat', 'advisory', 1, 1, 'hold', '{}')"
    )
    put_samples(query, timedelta(days=2), number=1)
    with holding(work.__name__), pytest.raises(LockHeld):
        work(deps)
