"""Workers' rows on a real Postgres."""

from typing import Any

import pytest
import sqlalchemy as sa

from headrace.domain.fleet import WorkerInfo, WorkerReport
from headrace.domain.ids import new_id
from headrace.store import Store
from headrace.store.fleet.workers import fleets, register, renew
from headrace.tables import hosts, worker_samples, workers


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
    info = WorkerInfo(new_id(), "gpu@test", "host", "chat", "simulator", "test-model", 4)
    with store.begin() as db:
        register(db, info, 60)
        db.execute(sa.insert(hosts).values(**{**LEASE, **lease}))

        assert renew(db, info.id, 60, WorkerReport(0, ready=True)).host_drains is drains


def test_what_a_worker_says_of_itself_is_in_its_row(store: Store) -> None:
    info = WorkerInfo(new_id(), "gpu@test", "host", "chat", "simulator", "test-model", 4)
    with store.begin() as db:
        register(db, info, 60)
        renew(db, info.id, 60, WorkerReport(3, ready=False, draining=True))

        [row] = db.execute(sa.select(workers.c.running, workers.c.ready, workers.c.draining))
    assert row == (3, False, True)


def test_a_renewal_reads_the_live_leases_of_its_pool_alone(store: Store) -> None:
    info = WorkerInfo(new_id(), "gpu@test", "host", "chat", "simulator", "test-model", 4)
    with store.begin() as db:
        register(db, info, 60)
        db.exec_driver_sql(
            "INSERT INTO hosts (id, pool, requested_at, ended_at) SELECT i, 'chat', now(), now() "
            "FROM generate_series(1, 10000) i"
        )
        db.exec_driver_sql("ANALYZE hosts")
        said = list[tuple[str, Any]]()

        def keep(_db: Any, _cursor: Any, sql: str, values: Any, _context: Any, _many: bool) -> None:
            said.append((sql, values))

        sa.event.listen(db, "before_cursor_execute", keep)
        renew(db, info.id, 60, WorkerReport(0, ready=True))
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
