"""Workers' rows on a real Postgres."""

import sqlalchemy as sa

from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.store import Store
from headrace.store.fleet.workers import register
from headrace.tables import workers


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
