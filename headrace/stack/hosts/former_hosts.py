"""The hosts of an earlier run of this stack. None is left when it starts: the lock of its state folder says so."""

from headrace import connections
from headrace.config import Settings
from headrace.store import Store
from headrace.store.fleet import hosts, workers
from headrace.store.fleet.removed_pools import removed_pools

#: Why their workers stopped, in `workers.stop_reason`.
REASON = "the stack was started again"


def end_former_hosts(settings: Settings) -> None:
    """End their leases, and those of their workers.

    Otherwise each would take the place of a new host for a minute: a silent host may only have lost its network.
    Raises: StoreUnavailable.
    """
    store = Store(connections.postgres(settings, pool_size=1))
    try:
        with store.begin() as db:
            # A pool that was removed from the settings has no hosts any more either.
            for pool in (*settings.own_pools, *removed_pools(db, settings.own_pools)):
                workers.retire_all(db, pool, REASON)
                hosts.end_all(db, pool)
    finally:
        store.close()
