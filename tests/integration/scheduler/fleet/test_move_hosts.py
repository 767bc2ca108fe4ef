"""The sweep that moves hosts: what the leases want comes about, once, whatever the provider and the processes do."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Barrier
from typing import Any

import pytest

from headrace import connections
from headrace.domain.fleet import WorkerInfo
from headrace.domain.hosts import HostEnd
from headrace.domain.ids import new_id
from headrace.errors import StoreUnavailable
from headrace.store import Store
from headrace.store.fleet import hosts, workers
from scheduler.actuators.base import HostMachine
from scheduler.deps import ControlDeps
from scheduler.fleet.move_hosts import FAILPOINT_INTENDED, FAILPOINT_ORDERED, HostMover
from scheduler.fleet.plan import Timing
from tests.contracts.providers.cloud import Cloud
from tests.integration.scheduler.fleet.conftest import AT_ONCE

STATES = (
    "SELECT CASE WHEN ended_at IS NOT NULL THEN end_reason WHEN drain_at IS NOT NULL THEN 'draining'"
    " WHEN ready_at IS NOT NULL THEN 'ready' WHEN ordered_at IS NOT NULL THEN 'ordered' ELSE 'wanted' END, count(*)"
    " FROM hosts GROUP BY 1 ORDER BY 1"
)


class Killed(BaseException):
    """The process ended there."""


@pytest.fixture
def states(query: Any) -> Callable[[], dict[str, int]]:
    """How many leases stand where."""
    return lambda: dict(query(STATES))


@pytest.fixture
def twins(active: ControlDeps, cloud: Cloud) -> Iterator[list[HostMover]]:
    """The same pool's movers in two control processes."""
    engines = [connections.postgres(active.settings) for _ in range(2)]
    yield [HostMover(replace(active, store=Store(engine)), cloud, "chat", AT_ONCE) for engine in engines]
    for engine in engines:
        engine.dispose()


def later(query: Any, seconds: float) -> None:
    """Everything in the leases happened so much earlier."""
    by = timedelta(seconds=seconds)
    columns = ("requested_at", "ordered_at", "ready_at", "drain_at", "released_at")
    query(f"UPDATE hosts SET {', '.join(f'{column} = {column} - :by' for column in columns)}", by=by)


def test_what_is_wanted_is_ordered_once_and_becomes_ready(
    mover: HostMover, cloud: Cloud, want: Any, work_on: Any, states: Any, query: Any
) -> None:
    ids = want(3)
    assert mover() == 3
    assert (cloud.started, states()) == (3, {"ordered": 3})
    assert query("SELECT applied_at IS NOT NULL, tries, error FROM decisions") == [(True, 1, None)]
    mover()
    assert set(query("SELECT provider_id FROM hosts")) == {(key,) for key in cloud.existing}
    for host_id in ids:
        work_on(host_id)
    mover()
    mover()
    assert (cloud.started, states()) == (3, {"ready": 3})
    assert query("SELECT DISTINCT instance_type, usd_per_hour FROM hosts") == [("a100", Decimal("4.1"))]


@pytest.mark.parametrize(
    ("failpoint", "started"), [(FAILPOINT_INTENDED, 0), (FAILPOINT_ORDERED, 2)], ids=["intended", "ordered"]
)
def test_a_process_that_dies_around_the_order_orders_nothing_twice(
    active: ControlDeps, cloud: Cloud, mover: HostMover, want: Any, states: Any, failpoint: str, started: int
) -> None:
    def fail_at(name: str) -> None:
        if name == failpoint:
            raise Killed

    want(2)
    with pytest.raises(Killed):
        HostMover(active, cloud, "chat", AT_ONCE, fail_at)()
    assert (cloud.started, states()) == (started, {"wanted": 2})
    for _ in range(3):
        mover()
    assert (cloud.started, states()) == (2, {"ordered": 2})


def test_postgres_that_is_away_when_the_order_is_recorded_orders_nothing_twice(
    mover: HostMover, cloud: Cloud, want: Any, states: Any, read_only: Any
) -> None:
    want(2)
    with ExitStack() as outage:
        cloud.on_order = lambda: outage.enter_context(read_only())
        with pytest.raises(StoreUnavailable):
            mover()
        cloud.on_order = lambda: None
        with pytest.raises(StoreUnavailable):
            mover()
    assert (cloud.started, states()) == (2, {"wanted": 2})
    mover()
    mover()
    assert (cloud.started, states()) == (2, {"ordered": 2})


def test_two_processes_at_once_order_nothing_twice(
    twins: list[HostMover], cloud: Cloud, want: Any, states: Any
) -> None:
    barrier = Barrier(len(twins))

    def sweep(mover: HostMover) -> int:
        barrier.wait(10)
        return mover()

    with ThreadPoolExecutor(len(twins)) as threads:
        for _ in range(5):
            want(1)
            list(threads.map(sweep, twins))
    assert (cloud.started, states()) == (5, {"ordered": 5})
    assert max(cloud.calls.count(call) for call in ("order",)) == 5


def test_while_a_call_hangs_another_process_waits_for_the_claim_and_then_takes_over(
    active: ControlDeps, twins: list[HostMover], cloud: Cloud, want: Any, states: Any, query: Any
) -> None:
    hung, other = twins
    want(2)
    cloud.hang.clear()
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(hung)
        assert cloud.called.wait(10)
        assert (other(), cloud.calls) == (0, ["machines"])
        assert query("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'") == [(0,)]
        query("UPDATE host_actors SET until = now()")
        cloud.called.clear()
        with ThreadPoolExecutor(1) as more:
            takes_over = more.submit(other)
            assert cloud.called.wait(10)
            cloud.hang.set()
            assert takes_over.result(10) == 2
        assert call.result(10) == 0
    assert (cloud.started, states()) == (2, {"ordered": 2})
    assert cloud.calls.count("order") == 1


@pytest.mark.parametrize("call", ["machines", "order"])
def test_a_failed_call_is_on_the_decision_and_repeated_after_a_pause(
    active: ControlDeps, cloud: Cloud, want: Any, states: Any, query: Any, call: str
) -> None:
    want(2)
    patient = HostMover(active, cloud, "chat", Timing(look_every_s=0, retry_s=3600))
    cloud.failing = {call}
    patient()
    assert query("SELECT tries, error, applied_at FROM decisions") == [(1, f"no {call} today", None)]
    cloud.failing = set()
    num_calls = len(cloud.calls)
    patient()
    assert (len(cloud.calls), states()) == (num_calls, {"wanted": 2})
    assert HostMover(active, cloud, "chat", AT_ONCE)() == 2
    assert query("SELECT tries, error, applied_at IS NOT NULL FROM decisions") == [(2, f"no {call} today", True)]
    # A provider that names machines is also told how many are awaited.
    answered = {"machines": (2, 3), "order": (3, 5)}[call][not cloud.names_hosts]
    assert active.tallies.calls.snapshot() == {("chat", "failed"): 1, ("chat", "answered"): answered}


def test_half_a_success_is_recorded_and_completed(
    cloud: Cloud, mover: HostMover, want: Any, states: Any, query: Any
) -> None:
    want(3)
    cloud.most = {"chat": 1}
    mover()
    error = "The provider accepted 1 of 3 orders." if cloud.names_hosts else "no more than 1 machines"
    assert query("SELECT error, applied_at FROM decisions") == [(error, None)]
    assert states() == ({"ordered": 1, "wanted": 2} if cloud.names_hosts else {"wanted": 3})
    cloud.most = {}
    mover()
    mover()
    assert (cloud.started, states()) == (3, {"ordered": 3})
    assert query("SELECT applied_at IS NOT NULL FROM decisions") == [(True,)]


def test_a_host_that_never_comes_is_written_off_and_its_machine_ended(
    cloud: Cloud, mover: HostMover, want: Any, states: Any, query: Any, caplog: pytest.LogCaptureFixture
) -> None:
    want(2)
    mover()
    mover()
    later(query, 140)
    mover()
    assert states() == {"ordered": 2}
    later(query, 11)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            mover()
    assert (states(), cloud.existing) == ({"written_off": 2}, {})
    assert caplog.messages.count("host_given_up") == 2


def test_an_order_that_the_provider_forgets_is_repeated_until_it_is_written_off(
    cloud: Cloud, mover: HostMover, want: Any, states: Any, query: Any
) -> None:
    want(2)
    cloud.is_deaf = True
    mover()
    assert states() == {"ordered": 2}
    later(query, 151)
    mover()
    mover()
    mover()
    assert (states(), cloud.started) == ({"written_off": 2}, 0)


def test_machines_that_do_not_exist_change_nothing_for_those_that_do(
    cloud: Cloud, mover: HostMover, ready: Any, want: Any, states: Any, query: Any
) -> None:
    ready(2)
    cloud.phantoms = [
        HostMachine("phantom-1"),
        HostMachine("phantom-2", "host-of-somebody" if cloud.names_hosts else None),
    ]
    mover()
    assert states() == {"ready": 2}
    want(2)
    mover()
    mover()
    # A provider that names machines itself may well have started the phantoms for these orders: they never get ready.
    later(query, 151)
    cloud.phantoms = []
    for _ in range(3):
        mover()
    assert states() == {"ready": 2, "written_off": 2}
    assert len(cloud.existing) == 2


def test_a_host_whose_worker_lives_stays_though_the_provider_forgets_it(
    cloud: Cloud, mover: HostMover, ready: Any, states: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.fleet.plan.MISSING", timedelta(0))
    ready(3)
    cloud.hidden = set(cloud.existing)
    for _ in range(3):
        mover()
    assert states() == {"ready": 3}
    cloud.hidden = set()
    mover()
    assert (states(), cloud.started) == ({"ready": 3}, 3)


def test_a_host_whose_machine_vanished_ends_after_a_minute(
    cloud: Cloud, mover: HostMover, ready: Any, states: Any, query: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    [gone, _] = ready(2)
    query(
        "UPDATE workers SET lease_until = now() - interval '1 second' WHERE host_id IN "
        "(SELECT unnest(ARRAY[id, provider_id]) FROM hosts WHERE id = :id)",
        id=gone,
    )
    [(machine,)] = query("SELECT provider_id FROM hosts WHERE id = :id", id=gone)
    cloud.existing.pop(machine)
    mover()
    mover()
    assert states() == {"ready": 2}
    monkeypatch.setattr("scheduler.fleet.plan.MISSING", timedelta(0))
    mover()
    assert states() == {"gone": 1, "ready": 1}


def test_a_host_whose_workers_fell_silent_is_ended_at_the_provider(
    cloud: Cloud, mover: HostMover, ready: Any, states: Any, query: Any
) -> None:
    ready(1)
    query("UPDATE workers SET lease_until = now() - interval '149 seconds'")
    mover()
    assert states() == {"ready": 1}
    query("UPDATE workers SET lease_until = now() - interval '151 seconds'")
    for _ in range(3):
        mover()
    assert (states(), cloud.existing) == ({"gone": 1}, {})


def test_a_drained_host_is_released_when_nothing_runs_on_it(
    cloud: Cloud,
    mover: HostMover,
    ready: Any,
    drain: Any,
    hear: Any,
    states: Any,
    stop_workers: Any,
    query: Any,
    queued: Any,
) -> None:
    ids = ready(3)
    ticket = queued()
    query(
        "UPDATE jobs SET state = 'running', worker_id = (SELECT w.id FROM workers w JOIN hosts h"
        " ON w.host_id IN (h.id, h.provider_id) WHERE h.id = :id) WHERE id = :job",
        id=ids[0],
        job=ticket.job_id,
    )
    drain(*ids[:2])
    mover()
    assert (states(), len(cloud.existing), len(cloud.marked)) == ({"draining": 2, "ready": 1}, 3, 2)
    hear()
    mover()
    stop_workers()
    mover()
    assert (states(), len(cloud.existing)) == ({"draining": 1, "ready": 1, "scaled_down": 1}, 2)
    query("UPDATE jobs SET state = 'queued', worker_id = NULL")
    mover()
    stop_workers()
    mover()
    assert (states(), len(cloud.existing)) == ({"ready": 1, "scaled_down": 2}, 1)


def test_a_host_that_drains_too_long_is_released_with_what_runs_on_it(
    cloud: Cloud, mover: HostMover, ready: Any, drain: Any, states: Any, stop_workers: Any, query: Any
) -> None:
    ids = ready(2)
    drain(ids[0])
    later(query, 899)
    mover()
    assert states() == {"draining": 1, "ready": 1}
    later(query, 2)
    mover()
    assert len(cloud.existing) == 1
    stop_workers()
    mover()
    assert states() == {"ready": 1, "scaled_down": 1}


def test_a_release_that_fails_is_on_the_decision_and_repeated(
    cloud: Cloud, mover: HostMover, ready: Any, drain: Any, hear: Any, states: Any, stop_workers: Any, query: Any
) -> None:
    [host_id] = ready(1)
    drain(host_id)
    hear()
    cloud.failing = {"release"}
    mover()
    assert query("SELECT error FROM decisions WHERE action = 'down'") == [("no release today",)]
    cloud.failing = set()
    cloud.keeps = True
    mover()
    mover()
    assert states() == {"draining": 1}
    cloud.keeps = False
    mover()
    stop_workers()
    mover()
    assert (states(), cloud.existing) == ({"scaled_down": 1}, {})


def test_a_host_that_is_called_back_serves_and_one_that_was_released_cannot_be(
    active: ControlDeps,
    cloud: Cloud,
    mover: HostMover,
    ready: Any,
    drain: Any,
    hear: Any,
    states: Any,
    stop_workers: Any,
) -> None:
    ids = ready(2)
    drain(*ids)
    mover()
    assert len(cloud.marked) == 2
    with active.store.begin() as db:
        [back] = hosts.call_back(db, "chat", 1)
    hear()
    mover()
    with active.store.begin() as db:
        assert hosts.call_back(db, "chat", 1) == []
    stop_workers()
    mover()
    assert states() == {"ready": 1, "scaled_down": 1}
    assert len(cloud.existing) == 1
    assert back in ids
    assert not cloud.marked & set(cloud.existing)


def test_a_host_that_is_called_back_while_the_sweep_runs_is_not_released(
    active: ControlDeps, cloud: Cloud, mover: HostMover, ready: Any, drain: Any, hear: Any, states: Any
) -> None:
    [host_id] = ready(1)
    drain(host_id)
    hear()

    list_machines = cloud.machines

    def call_back_then_list(pool: str) -> list[HostMachine]:
        with active.store.begin() as db:
            hosts.call_back(db, "chat", 1)
        return list_machines(pool)

    cloud.machines = call_back_then_list  # type: ignore[method-assign]
    mover()
    assert (states(), len(cloud.existing)) == ({"ready": 1}, 1)
    assert "release" not in cloud.calls


def test_a_host_that_dies_while_it_drains_ends(
    cloud: Cloud, mover: HostMover, ready: Any, drain: Any, states: Any, query: Any
) -> None:
    [host_id] = ready(1)
    drain(host_id)
    query("UPDATE workers SET lease_until = now()")
    cloud.existing.clear()
    mover()
    assert states() == {"scaled_down": 1}
    assert "release" not in cloud.calls


def test_a_draining_host_whose_worker_lives_does_not_end_though_the_provider_forgets_it(
    cloud: Cloud, mover: HostMover, ready: Any, drain: Any, states: Any
) -> None:
    [host_id] = ready(1)
    drain(host_id)
    cloud.hidden = set(cloud.existing)
    mover()
    assert states() == {"draining": 1}


def test_an_order_that_is_taken_back_in_time_is_never_made(
    cloud: Cloud, mover: HostMover, want: Any, drain: Any, states: Any
) -> None:
    drain(*want(2))
    mover()
    mover()
    assert (states(), cloud.started) == ({"scaled_down": 2}, 0)


def test_an_ordered_host_that_is_not_wanted_any_more_is_ended_when_it_shows(
    cloud: Cloud, mover: HostMover, want: Any, drain: Any, states: Any
) -> None:
    ids = want(2)
    mover()
    cloud.hidden = set(cloud.existing)
    drain(*ids)
    mover()
    cloud.hidden = set()
    mover()
    mover()
    assert (states(), cloud.existing) == ({"scaled_down": 2}, {})


def test_a_host_that_nobody_ordered_is_adopted_once_a_worker_lives_on_it(
    cloud: Cloud, mover: HostMover, work_on: Any, states: Any, query: Any
) -> None:
    cloud.existing["i-9"] = HostMachine("i-9", "other" if cloud.names_hosts else None)
    mover()
    assert states() == {}
    work_on("other" if cloud.names_hosts else "i-9")
    work_on("a-machine-of-ours")
    mover()
    mover()
    assert states() == {"ready": 2}
    assert query("SELECT provider_id, is_adopted, usd_per_hour > 4 FROM hosts ORDER BY 1") == [
        ("i-9", True, True),
        (None, True, True),
    ]


def test_hosts_are_adopted_while_the_provider_is_away_if_workers_have_our_names(
    cloud: Cloud, mover: HostMover, work_on: Any, states: Any
) -> None:
    cloud.failing = {"machines"}
    work_on("a-machine-of-ours")
    mover()
    assert states() == ({"ready": 1} if cloud.names_hosts else {})


def test_a_lease_that_ended_too_early_is_adopted_anew(
    active: ControlDeps, cloud: Cloud, mover: HostMover, ready: Any, states: Any
) -> None:
    [host_id] = ready(1)
    with active.store.begin() as db:
        hosts.end(db, [host_id], HostEnd.GONE)
    mover()
    mover()
    assert (states(), len(cloud.existing)) == ({"gone": 1, "ready": 1}, 1)


def test_a_machine_whose_lease_has_ended_is_ended(
    active: ControlDeps, cloud: Cloud, mover: HostMover, want: Any, states: Any
) -> None:
    [host_id] = want(1)
    mover()
    mover()
    with active.store.begin() as db:
        hosts.end(db, [host_id], HostEnd.GONE)
    mover()
    assert (states(), cloud.existing) == ({"gone": 1}, {})


@pytest.fixture
def its_cloud() -> Cloud:
    """A provider that names machines itself, and that has none for now."""
    cloud = Cloud(names_hosts=False)
    cloud.is_short = True
    return cloud


@pytest.fixture
def unfilled(active: ControlDeps, its_cloud: Cloud, want: Any, states: Any, query: Any) -> HostMover:
    """The mover of a pool of which one order was written off 1,000 s ago, without a machine."""
    mover = HostMover(active, its_cloud, "chat", AT_ONCE)
    want(1)
    mover()
    assert (states(), its_cloud.pending) == ({"ordered": 1}, {"chat": 1})
    later(query, 1000)
    mover()
    mover()
    assert states() == {"written_off": 1}
    return mover


def launched(cloud: Cloud, age_s: float | None) -> str:
    """A machine that the provider starts unasked; None: it does not say when."""
    machine = cloud._start("chat", None)
    assert machine is not None
    if age_s is not None:
        cloud.launched_at[machine.provider_id] = datetime.now(UTC) - timedelta(seconds=age_s)
    return machine.provider_id


@pytest.mark.usefixtures("unfilled")
def test_an_order_that_is_written_off_is_taken_back(its_cloud: Cloud) -> None:
    assert its_cloud.deliver("chat") == []


def test_what_was_not_taken_back_when_its_order_was_written_off_is_later(
    active: ControlDeps, its_cloud: Cloud, want: Any, states: Any, query: Any
) -> None:
    mover = HostMover(active, its_cloud, "chat", AT_ONCE)
    want(1)
    mover()
    later(query, 1000)
    its_cloud.failing = {"withdraw"}
    for _ in range(3):
        mover()
    assert (states(), its_cloud.pending) == ({"written_off": 1}, {"chat": 1})
    its_cloud.failing = set()
    # Another process, which knows nothing of the first one.
    HostMover(active, its_cloud, "chat", AT_ONCE)()
    assert its_cloud.deliver("chat") == []


def test_orders_that_are_awaited_are_not_taken_back(active: ControlDeps, its_cloud: Cloud, want: Any) -> None:
    mover = HostMover(active, its_cloud, "chat", AT_ONCE)
    want(2)
    for _ in range(3):
        mover()
    assert len(its_cloud.deliver("chat")) == 2


def test_a_machine_that_came_too_late_and_has_no_worker_is_ended(
    unfilled: HostMover, its_cloud: Cloud, query: Any, caplog: pytest.LogCaptureFixture
) -> None:
    late = launched(its_cloud, 200)
    unfilled()
    unfilled()
    # Orders of which no host came double the patience of 150 s.
    assert its_cloud.existing.keys() == {late}, "its worker may still come"
    its_cloud.launched_at[late] -= timedelta(seconds=150)
    other = launched(its_cloud, 350)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            unfilled()
    assert its_cloud.existing.keys() == {other}, "there was one order, so that only one of them is ours"
    assert query("SELECT provider_id FROM hosts") == [(late,)]
    assert caplog.messages.count("host_came_late") == 1


def test_a_late_machine_whose_worker_lives_is_adopted(
    unfilled: HostMover, active: ControlDeps, its_cloud: Cloud, states: Any
) -> None:
    late = launched(its_cloud, 350)
    worker = WorkerInfo(new_id(), f"gpu@{late}", late, "chat", "simulator", "m", max_running=8)
    with active.store.begin() as db:
        workers.register(db, worker, 10.0)
    for _ in range(3):
        unfilled()
    assert (its_cloud.existing.keys(), states()) == ({late}, {"ready": 1, "written_off": 1})


@pytest.mark.parametrize("age_s", [None, 2000, 90_000], ids=["unknown", "before our order", "long ago"])
def test_a_machine_that_was_not_launched_for_an_order_is_named_and_never_touched(
    unfilled: HostMover, its_cloud: Cloud, query: Any, age_s: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    strange = launched(its_cloud, age_s)
    for _ in range(3):
        unfilled()
    assert "scaling_machine_unclaimed" not in caplog.messages, "its worker may still come"
    query("UPDATE scaling_alerts SET began_at = began_at - interval '10 minutes'")
    for _ in range(3):
        unfilled()
    assert its_cloud.existing.keys() == {strange}
    [alert] = [each for each in caplog.records if each.message == "scaling_machine_unclaimed"]
    assert (alert.host, alert.pool, alert.state) == (strange, "chat", "began")  # type: ignore[attr-defined]
    its_cloud.existing.clear()
    with caplog.at_level(logging.INFO):
        unfilled()
    assert caplog.messages.count("scaling_machine_unclaimed") == 2, "it has ended"
    assert query("SELECT count(*) FROM scaling_alerts") == [(0,)]
