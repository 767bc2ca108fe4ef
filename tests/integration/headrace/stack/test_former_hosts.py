"""The hosts that an earlier run of a stack left in its Postgres."""

import sqlalchemy as sa

from headrace.config import Settings
from headrace.stack.machine import end_former_hosts
from headrace.store import Store
from headrace.tables import hosts


def test_their_leases_end_also_in_pools_that_were_removed_since(settings: Settings, store: Store) -> None:
    with store.begin() as db:
        for pool in ("chat", "removed"):
            db.execute(sa.insert(hosts).values(id=f"host-{pool}", pool=pool, requested_at=sa.func.now()))

    end_former_hosts(settings)

    with store.begin() as db:
        assert db.scalars(sa.select(hosts.c.end_reason)).all() == ["gone", "gone"]
