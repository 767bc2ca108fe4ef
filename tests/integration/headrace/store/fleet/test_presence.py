"""Hosts by their state, and the slots that they have."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.domain.fleet import WorkerInfo
from headrace.domain.hosts import HostCounts
from headrace.domain.ids import new_id
from headrace.store import Store
from headrace.store.fleet import presence
from headrace.store.fleet.workers import fleets, register
from headrace.tables import hosts, workers

NOW = datetime.now(UTC)


@pytest.fixture
def worker(store: Store) -> Callable[..., None]:
    """A live worker with 4 slots that names this host; keyword arguments set its columns."""

    def start(host_id: str, pool: str = "chat", **columns: Any) -> None:
        info = WorkerInfo(new_id(), "gpu@test", host_id, pool, "simulator", "test-model", 4)
        with store.begin() as db:
            register(db, info, 60)
            db.execute(sa.update(workers).where(workers.c.id == info.id).values(ready=True, **columns))

    return start


@pytest.fixture
def lease(store: Store) -> Callable[..., None]:
    """The lease of a host; keyword arguments set its columns."""

    def add(host_id: str, **columns: Any) -> None:
        with store.begin() as db:
            db.execute(sa.insert(hosts).values(id=host_id, requested_at=NOW, **{"pool": "chat", **columns}))

    return add


@pytest.fixture
def counted(store: Store) -> Callable[[], HostCounts]:
    """The hosts of the pool `chat`, and its fleet's hosts and slots."""

    def count() -> HostCounts:
        with store.begin() as db:
            return presence.count_hosts(db).get("chat", HostCounts())

    return count


@pytest.fixture
def fleet(store: Store) -> Callable[[], tuple[int, int, int]]:
    """The workers, hosts and slots of the pool `chat`."""

    def read() -> tuple[int, int, int]:
        with store.begin() as db:
            chat = fleets(db)["chat"]
        return chat.workers, chat.hosts, chat.slots

    return read


def test_workers_of_one_host_are_one_host_by_whichever_name_they_call_it(
    worker: Callable[..., None], lease: Callable[..., None], counted: Any, fleet: Any
) -> None:
    lease("ours", provider_id="i-1", ready_at=NOW)
    worker("ours")
    worker("i-1")
    worker("i-1")
    assert counted() == HostCounts(ready=1)
    assert fleet() == (3, 1, 12)


def test_a_host_that_nobody_ordered_counts_and_another_pools_lease_does_not(
    worker: Callable[..., None], lease: Callable[..., None], counted: Any, fleet: Any
) -> None:
    lease("spare", pool="other", drain_at=NOW)
    lease("gone", ended_at=NOW, drain_at=NOW)
    worker("spare")
    worker("gone")
    worker("nobodys")
    assert counted() == HostCounts(ready=3)
    assert fleet() == (3, 3, 12)


def test_a_worker_on_a_draining_host_has_no_slots(
    worker: Callable[..., None], lease: Callable[..., None], counted: Any, fleet: Any
) -> None:
    lease("stays", ready_at=NOW)
    lease("goes", ready_at=NOW, drain_at=NOW)
    worker("stays")
    worker("goes")
    worker("goes")
    # A host without a lease drains once all of its workers do.
    worker("nobodys", draining=True)
    assert counted() == HostCounts(ready=1, draining=2)
    assert fleet() == (4, 1, 4)


def test_a_worker_that_two_leases_name_counts_once(
    worker: Callable[..., None], lease: Callable[..., None], counted: Any, fleet: Any
) -> None:
    lease("i-1", is_adopted=True, ready_at=NOW)
    lease("ours", provider_id="i-1")
    worker("i-1")
    assert counted() == HostCounts(ready=1, requested=1)
    assert fleet() == (1, 1, 4)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, HostCounts(requested=1)),
        ({"ordered_at": NOW, "provider_id": "i-1"}, HostCounts(requested=1)),
        ({"drain_at": NOW}, HostCounts(draining=1)),
        ({"end_reason": "written_off"}, HostCounts()),
        ({"ended_at": NOW, "end_reason": "written_off"}, HostCounts()),
        ({"ready_at": NOW}, HostCounts()),
    ],
    ids=["requested", "ordered", "draining", "written off", "ended", "lost its workers"],
)
def test_a_host_without_workers_is_on_its_way_draining_or_none(
    lease: Callable[..., None], counted: Any, columns: dict[str, Any], expected: HostCounts
) -> None:
    lease("ours", **columns)
    assert counted() == expected


def test_a_requested_host_is_ready_with_its_first_worker(
    worker: Callable[..., None], lease: Callable[..., None], counted: Any
) -> None:
    lease("ours", ordered_at=NOW)
    worker("ours")
    assert counted() == HostCounts(ready=1)
