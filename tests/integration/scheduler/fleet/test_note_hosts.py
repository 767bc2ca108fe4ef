"""Leases of hosts in mode `advisory`, on a real Postgres."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.config import HostTypeSettings, ScalingSettings
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.store.fleet import workers
from headrace.tables import hosts
from headrace.tables import workers as worker_rows
from scheduler.deps import ControlDeps
from scheduler.fleet.move_hosts import SILENT, note_hosts


@pytest.fixture
def advisory(deps: ControlDeps) -> ControlDeps:
    """The hosts of the pool `chat` are of the type `a100`, and an operator starts and ends them."""
    types = {"a100": HostTypeSettings(usd_per_hour=Decimal("4.10"))}
    changes = {"scaling": ScalingSettings(host_type="a100"), "hosts": types}
    return replace(deps, settings=deps.settings.model_copy(update=changes))


@pytest.fixture
def work_on(advisory: ControlDeps) -> Callable[..., None]:
    """Starts a worker on a host, or lets one live that was started there with this lease."""

    def start(host_id: str, lease_s: float = 10) -> None:
        worker = WorkerInfo(new_id(), f"gpu@{host_id}", host_id, "chat", "simulator", "m", max_running=8)
        with advisory.store.begin() as db:
            workers.register(db, worker, lease_s)

    return start


def leases(deps: ControlDeps) -> list[Any]:
    with deps.store.begin() as db:
        return list(db.execute(sa.select(hosts).order_by(hosts.c.requested_at, hosts.c.id)))


def let_silent_for(deps: ControlDeps, silence: timedelta) -> datetime:
    """Let the leases of all workers have ended so long ago; returns when."""
    with deps.store.begin() as db:
        ended = sa.update(worker_rows).values(
            lease_until=sa.func.now() - silence, started_at=sa.func.now() - 2 * silence
        )
        db.execute(ended)
        db.execute(sa.update(hosts).values(ordered_at=sa.func.now() - 2 * silence))
        until = db.scalar(sa.select(sa.func.max(worker_rows.c.lease_until)))
    assert until is not None
    return until


def test_a_host_has_a_lease_with_its_price_as_long_as_its_workers_live(
    advisory: ControlDeps, work_on: Callable[..., None]
) -> None:
    work_on("box-1")
    work_on("box-1")
    work_on("box-2")

    assert (note_hosts(advisory, "chat"), note_hosts(advisory, "chat")) == (2, 0)

    found = leases(advisory)
    assert [(each.id, each.is_adopted, each.usd_per_hour) for each in found] == [
        ("box-1", True, Decimal("4.10")),
        ("box-2", True, Decimal("4.10")),
    ]
    assert all(each.ready_at is not None and each.ended_at is None for each in found)
    assert all(each.ordered_at <= datetime.now(UTC) for each in found)


def test_a_silent_host_ends_when_it_was_last_heard_of(advisory: ControlDeps, work_on: Callable[..., None]) -> None:
    work_on("box-1")
    note_hosts(advisory, "chat")
    let_silent_for(advisory, SILENT - timedelta(seconds=20))
    assert note_hosts(advisory, "chat") == 0
    until = let_silent_for(advisory, timedelta(hours=3))

    assert note_hosts(advisory, "chat") == 1

    [lease] = leases(advisory)
    assert (lease.ended_at, lease.end_reason) == (until, "gone")


def test_a_host_that_comes_back_has_another_lease(advisory: ControlDeps, work_on: Callable[..., None]) -> None:
    work_on("box-1")
    note_hosts(advisory, "chat")
    let_silent_for(advisory, timedelta(hours=3))
    note_hosts(advisory, "chat")

    work_on("box-1")
    note_hosts(advisory, "chat")

    assert [(each.provider_id, each.ended_at is None) for each in leases(advisory)] == [(None, False), ("box-1", True)]


def test_the_leases_of_other_pools_are_not_touched(advisory: ControlDeps, work_on: Callable[..., None]) -> None:
    work_on("box-1")
    note_hosts(advisory, "chat")
    let_silent_for(advisory, timedelta(hours=3))

    assert note_hosts(advisory, "other") == 0
    assert [each.ended_at for each in leases(advisory)] == [None]
