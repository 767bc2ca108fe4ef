"""Workers' rows on a real Postgres; the hosts that they make up, and their slots."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.domain.fleet import WorkerInfo, WorkerReport
from headrace.domain.hosts import HostCounts
from headrace.domain.ids import new_id
from headrace.store import Store
from headrace.store.fleet.workers import count_hosts, fleets, register, renew
from headrace.tables import hosts, worker_samples, workers
from tests import one_attempt


def test_a_worker_whose_commit_got_no_reply_registers_again(store: Store) -> None:
    info = WorkerInfo(new_id(), "gpu@test", "host", "chat", "simulator", "test-model", 4)
    leases = []
    for _ in range(2):
        with store.begin() as db:
            register(db, info, 60)
        with store.begin() as db:
            leases += db.scalars(sa.select(workers.c.lease_until)).all()
    first, second = leases
    assert second > first


LEASE = {"id": "ours", "pool": "chat", "requested_at": sa.func.now(), "drain_at": sa.func.now()}


@pytest.mark.parametrize(
    ("lease", "drains"),
    [
        ({"id": "host"}, True),
        ({"provider_id": "host"}, True),
        ({"id": "host", "drain_at": None}, False),
        ({"id": "host", "ended_at": sa.func.now()}, False),
        ({"id": "host", "pool": "code"}, False),
        ({"provider_id": "other"}, False),
        ({}, False),
    ],
)
def test_a_worker_hears_with_its_renewal_whether_its_host_drains(
    store: Store, lease: dict[str, Any], drains: bool
) -> None:
    with store.begin() as db:
        worker = one_attempt.add_worker(db)
        db.execute(sa.insert(hosts).values(**{**LEASE, **lease}))

        assert renew(db, worker, 60, WorkerReport(0, ready=True)).host_drains is drains


def test_what_a_worker_says_of_itself_is_in_its_row(store: Store) -> None:
    with store.begin() as db:
        worker = one_attempt.add_worker(db)
        renew(db, worker, 60, WorkerReport(3, ready=False, draining=True))

        [row] = db.execute(sa.select(workers.c.running, workers.c.ready, workers.c.draining))
    assert row == (3, False, True)


def test_a_renewal_reads_the_live_leases_of_its_pool_alone(store: Store) -> None:
    with store.begin() as db:
        worker = one_attempt.add_worker(db)
        db.exec_driver_sql(
            "INSERT INTO hosts (id, pool, requested_at, ended_at) SELECT i, 'chat', now(), now() "
            "FROM generate_series(1, 10000) i"
        )
        db.exec_driver_sql("ANALYZE hosts")
        said = list[tuple[str, Any]]()

        def keep(_db: Any, _cursor: Any, sql: str, values: Any, _context: Any, _many: bool) -> None:
            said.append((sql, values))

        sa.event.listen(db, "before_cursor_execute", keep)
        renew(db, worker, 60, WorkerReport(0, ready=True))
        sa.event.remove(db, "before_cursor_execute", keep)
        [(sql, values)] = said
        plan = "\n".join(row[0] for row in db.exec_driver_sql(f"EXPLAIN {sql}", values))

    assert "ix_hosts_live" in plan
    assert "Seq Scan on hosts" not in plan


def test_a_fleet_has_what_its_kv_ledgers_lately_reserved(store: Store) -> None:
    infos = [WorkerInfo(new_id(), f"gpu-{n}@test", "host", "chat", "simulator", "test-model", 256) for n in range(2)]
    idle = {"interval_s": 5, "running": 0, "waiting": 0, "steps": 0, "prompt_tokens": 0, "output_tokens": 0}
    with store.begin() as db:
        for info, kv_reserved in zip(infos, (0.6, 1.0), strict=True):
            register(db, info, 60)
            renew(db, info.id, 60, WorkerReport(0, ready=True))
            of_it = {**idle, "worker_id": info.id, "pool": "chat", "preemptions": 0}
            db.execute(sa.insert(worker_samples).values(**of_it, kv_reserved=kv_reserved))
            db.execute(
                sa.insert(worker_samples).values(**of_it, kv_reserved=0, taken_at=sa.text("now() - interval '1 hour'"))
            )

        fleet = fleets(db)["chat"]
    assert (fleet.slots, fleet.kv_use, fleet.kv_reserved) == (512, None, pytest.approx(0.8))


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
def leased(store: Store) -> Callable[..., None]:
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
            return count_hosts(db).get("chat", HostCounts())

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
    worker: Callable[..., None], leased: Callable[..., None], counted: Any, fleet: Any
) -> None:
    leased("ours", provider_id="i-1", ready_at=NOW)
    worker("ours")
    worker("i-1")
    worker("i-1")
    assert counted() == HostCounts(ready=1)
    assert fleet() == (3, 1, 12)


def test_a_host_that_nobody_ordered_counts_and_another_pools_lease_does_not(
    worker: Callable[..., None], leased: Callable[..., None], counted: Any, fleet: Any
) -> None:
    leased("spare", pool="other", drain_at=NOW)
    leased("gone", ended_at=NOW, drain_at=NOW)
    worker("spare")
    worker("gone")
    worker("nobodys")
    assert counted() == HostCounts(ready=3)
    assert fleet() == (3, 3, 12)


def test_a_worker_on_a_draining_host_has_no_slots(
    worker: Callable[..., None], leased: Callable[..., None], counted: Any, fleet: Any
) -> None:
    leased("stays", ready_at=NOW)
    leased("goes", ready_at=NOW, drain_at=NOW)
    worker("stays")
    worker("goes")
    worker("goes")
    # A host without a lease drains once all of its workers do.
    worker("nobodys", draining=True)
    assert counted() == HostCounts(ready=1, draining=2)
    assert fleet() == (4, 1, 4)


def test_a_worker_that_two_leases_name_counts_once(
    worker: Callable[..., None], leased: Callable[..., None], counted: Any, fleet: Any
) -> None:
    leased("i-1", is_adopted=True, ready_at=NOW)
    leased("ours", provider_id="i-1")
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
    leased: Callable[..., None], counted: Any, columns: dict[str, Any], expected: HostCounts
) -> None:
    leased("ours", **columns)
    assert counted() == expected


def test_a_requested_host_is_ready_with_its_first_worker(
    worker: Callable[..., None], leased: Callable[..., None], counted: Any
) -> None:
    leased("ours", ordered_at=NOW)
    worker("ours")
    assert counted() == HostCounts(ready=1)
