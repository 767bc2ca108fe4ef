"""A pool whose hosts are moved, a provider in memory, and workers on its machines."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from headrace.config import HostTypeSettings, ScalingSettings
from headrace.domain.fleet import ScalingRecord, WorkerInfo
from headrace.domain.hosts import HostEnd
from headrace.domain.ids import new_id
from headrace.store.fleet import decisions, hosts, workers
from headrace.store.fleet.hosts import HostPrice
from scheduler.deps import ControlDeps
from scheduler.fleet.move_hosts import HostMover
from scheduler.fleet.plan import Timing
from tests.contracts.providers.cloud import Cloud

LEASE_S = 10.0
#: No pause after a failure, and a look at each sweep.
AT_ONCE = Timing(look_every_s=0, retry_s=0)


@pytest.fixture
def active(deps: ControlDeps) -> ControlDeps:
    """The pool `chat` has 1 to 6 hosts of the type `a100`, which become ready within 100 s."""
    scaling = ScalingSettings(
        mode="active", actuator="command", policy="fixed", min_hosts=1, max_hosts=6, host_type="a100", drain_host_s=900
    )
    types = {"a100": HostTypeSettings(usd_per_hour=Decimal("4.10"), provision_s=100)}
    return replace(deps, settings=deps.settings.model_copy(update={"scaling": scaling, "hosts": types}))


@pytest.fixture(params=[True, False], ids=["our_names", "its_names"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    """A provider that keeps our ids of hosts, or that names machines itself."""
    return Cloud(names_hosts=request.param)


@pytest.fixture
def mover(active: ControlDeps, cloud: Cloud) -> HostMover:
    return HostMover(active, cloud, "chat", AT_ONCE)


@pytest.fixture
def want(active: ControlDeps) -> Callable[[int], list[str]]:
    """A decision orders this number of hosts; returns their ids."""

    def decide(count: int) -> list[str]:
        with active.store.begin() as db:
            record = ScalingRecord("chat", "active", 0, count, "up", {}, "up")
            price = HostPrice.of(active.settings, "chat")
            return hosts.add_orders(db, "chat", count, price, decisions.add(db, record))

    return decide


@pytest.fixture
def drain(active: ControlDeps) -> Callable[..., None]:
    """A decision drains these hosts."""

    def decide(*ids: str, reason: HostEnd = HostEnd.SCALED_DOWN) -> None:
        with active.store.begin() as db:
            decision_id = decisions.add(db, ScalingRecord("chat", "active", 3, 1, "down", {}, "down"))
            assert hosts.drain(db, ids, reason, decision_id) == sorted(ids)

    return decide


@pytest.fixture
def work_on(active: ControlDeps, query: Any, cloud: Cloud) -> Callable[[str], UUID]:
    """Starts a worker on a host; it names the host as it would on the provider's machine."""

    def start(host_id: str) -> UUID:
        named = query("SELECT provider_id FROM hosts WHERE id = :id AND provider_id IS NOT NULL", id=host_id)
        name = named[0][0] if named and not cloud.names_hosts else host_id
        worker = WorkerInfo(new_id(), f"gpu@{name}", name, "chat", "simulator", "m", max_running=8)
        with active.store.begin() as db:
            workers.register(db, worker, LEASE_S)
        return worker.id

    return start


@pytest.fixture
def ready(want: Any, mover: HostMover, work_on: Any) -> Callable[[int], list[str]]:
    """Orders hosts and starts a worker on each."""

    def start(count: int) -> list[str]:
        ids: list[str] = want(count)
        mover()
        mover()
        for host_id in ids:
            work_on(host_id)
        mover()
        return ids

    return start


@pytest.fixture
def hear(query: Any) -> Callable[[], None]:
    """Has the workers of draining hosts note that they drain, as their next renewals do."""

    def renew() -> None:
        query(
            "UPDATE workers SET draining = true, ready = false FROM hosts"
            " WHERE workers.host_id IN (hosts.id, hosts.provider_id) AND drain_at IS NOT NULL AND ended_at IS NULL"
        )

    return renew


@pytest.fixture
def stop_workers(query: Any, cloud: Cloud) -> Callable[[], None]:
    """Ends the workers whose machines have ended."""

    def stop() -> None:
        names = [name for each in cloud.existing.values() for name in (each.provider_id, each.host_id) if name]
        query("UPDATE workers SET lease_until = now() WHERE NOT host_id = ANY(:names)", names=names)

    return stop
