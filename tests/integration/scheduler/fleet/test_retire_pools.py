"""Hosts of pools that were removed from the settings, on a real Postgres."""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from headrace.config.scaling import CommandSettings
from headrace.domain.fleet import ScalingRecord, WorkerInfo
from headrace.domain.ids import new_id
from headrace.store.fleet import decisions, workers
from scheduler.app import host_sweeps
from scheduler.deps import ControlDeps
from scheduler.fleet.move_hosts import UNSERVED_INTERVALS, HostMover, PoolRetirer, note_hosts
from tests.contracts.providers.cloud import Cloud
from tests.contracts.providers.programs import MinimalProgram
from tests.integration.scheduler.fleet.conftest import AT_ONCE, LEASE_S

STANDING = (
    "SELECT id, CASE WHEN ended_at IS NOT NULL THEN end_reason WHEN drain_at IS NOT NULL THEN 'draining'"
    " ELSE 'live' END FROM hosts ORDER BY id"
)


def without_chat(deps: ControlDeps) -> ControlDeps:
    """The same, after the pool `chat` was removed."""
    return replace(deps, settings=deps.settings.model_copy(update={"pools": {"other": deps.settings.pools["chat"]}}))


@pytest.fixture
def standing(query: Any) -> Callable[[], dict[str, str]]:
    """Where each lease stands."""
    return lambda: dict(query(STANDING))


@pytest.fixture
def sweep(deps: ControlDeps) -> Callable[[], None]:
    """Runs the sweeps of hosts in mode `advisory`, without the pool `chat`."""
    sweeps = host_sweeps(without_chat(deps))

    def run() -> None:
        for each in sweeps:
            each.run()

    return run


@pytest.fixture
def adopted(deps: ControlDeps) -> str:
    """A host of the pool `chat` that the autoscaler did not order, with a live worker and a lease."""
    worker = WorkerInfo(new_id(), "gpu@box-1", "box-1", "chat", "simulator", "m", max_running=8)
    with deps.store.begin() as db:
        workers.register(db, worker, LEASE_S)
    assert note_hosts(deps, "chat") == 1
    return worker.host_id


@pytest.fixture
def retirer(active: ControlDeps, cloud: Cloud) -> PoolRetirer:
    """Of a control process in mode `active` without the pool `chat`."""
    deps = without_chat(active)
    return PoolRetirer(deps, lambda pool: HostMover(deps, cloud, pool, AT_ONCE))


@pytest.fixture
def pass_on(active: ControlDeps, query: Any) -> Callable[[], None]:
    """No process has looked after the pool for as long as it takes to retire it."""

    def move() -> None:
        by = timedelta(seconds=UNSERVED_INTERVALS * active.settings.autoscale_every_s)
        query("UPDATE host_actors SET until = until - :by", by=by)
        query("UPDATE decisions SET at = at - :by", by=by)

    return move


def test_an_adopted_lease_of_a_removed_pool_ends_once_its_host_is_silent(
    adopted: str, sweep: Callable[[], None], standing: Any, query: Any
) -> None:
    sweep()
    assert standing() == {adopted: "live"}
    query("UPDATE workers SET started_at = now() - interval '3 hours', lease_until = now() - interval '2 hours'")
    query("UPDATE hosts SET ordered_at = now() - interval '3 hours'")
    sweep()
    assert standing() == {adopted: "gone"}
    assert query("SELECT ended_at = lease_until FROM hosts, workers") == [(True,)]


def test_an_adopted_lease_ends_also_if_its_workers_rows_were_deleted_meanwhile(
    adopted: str, sweep: Callable[[], None], standing: Any, query: Any
) -> None:
    query("DELETE FROM workers")
    sweep()
    assert standing() == {adopted: "gone"}


def test_ordered_hosts_of_a_removed_pool_drain_finish_and_are_ended(
    *, ready: Any, want: Any, retirer: PoolRetirer, cloud: Cloud, pass_on: Any, hear: Any, standing: Any
) -> None:
    first, second = ready(2)
    [unordered] = want(1)
    pass_on()
    retirer()
    assert standing() == {first: "draining", second: "draining", unordered: "scaled_down"}
    assert (cloud.started, len(cloud.live("chat"))) == (2, 2)
    hear()
    retirer()
    assert cloud.live("chat") == []


def test_the_sweeps_without_the_pool_end_the_machines_that_those_with_it_ordered(
    *, active: ControlDeps, want: Any, pass_on: Any, standing: Any, tmp_path: Path
) -> None:
    program = MinimalProgram(tmp_path)
    argv = ("env", f"PROVIDER={program.folder}", *program.argv)
    scaling = active.settings.scaling.model_copy(update={"command": CommandSettings(argv=argv)})
    deps = replace(active, settings=active.settings.model_copy(update={"scaling": scaling}))
    [host_id] = want(1)
    for sweep in host_sweeps(deps):
        sweep.run()
    assert [each.host_id for each in program.actuator().machines("chat")] == [host_id]
    pass_on()

    for sweep in host_sweeps(without_chat(deps)):
        sweep.run()

    assert program.actuator().machines("chat") == []
    assert standing() == {host_id: "draining"}


def test_their_leases_end_when_the_provider_lists_no_machine(
    *, ready: Any, retirer: PoolRetirer, pass_on: Any, hear: Any, stop_workers: Any, standing: Any
) -> None:
    ids = ready(2)
    pass_on()
    retirer()
    hear()
    retirer()
    stop_workers()
    retirer()
    assert standing() == dict.fromkeys(ids, "scaled_down")
    assert retirer() == 0


def test_a_process_whose_settings_have_the_pool_keeps_its_hosts(
    *, ready: Any, mover: HostMover, retirer: PoolRetirer, cloud: Cloud, pass_on: Any, standing: Any
) -> None:
    ids = ready(2)
    retirer()
    pass_on()
    mover()
    retirer()
    assert standing() == dict.fromkeys(ids, "live")
    assert len(cloud.live("chat")) == 2


def test_a_decision_of_another_process_keeps_them_too(
    *, ready: Any, active: ControlDeps, retirer: PoolRetirer, pass_on: Any, standing: Any
) -> None:
    ids = ready(1)
    pass_on()
    with active.store.begin() as db:
        decisions.add(db, ScalingRecord("chat", "advisory", 1, 1, "hold", {}, "hold"))
    retirer()
    assert standing() == dict.fromkeys(ids, "live")


def test_an_adopted_lease_ends_while_the_provider_knows_no_such_pool(
    *, adopted: str, retirer: PoolRetirer, cloud: Cloud, pass_on: Any, standing: Any, query: Any
) -> None:
    cloud.failing = {"machines"}
    pass_on()
    retirer()
    assert standing() == {adopted: "live"}
    query("UPDATE workers SET lease_until = now() - interval '2 hours'")
    retirer()
    assert standing() == {adopted: "gone"}


def test_the_log_says_once_what_becomes_of_the_hosts(
    ready: Any, retirer: PoolRetirer, caplog: pytest.LogCaptureFixture
) -> None:
    ready(1)
    caplog.set_level(logging.WARNING)
    retirer()
    retirer()
    [record] = [each for each in caplog.records if each.msg == "pool_removed"]
    assert record.pool == "chat"  # type: ignore[attr-defined]
    assert "drain and are ended" in record.notice  # type: ignore[attr-defined]
