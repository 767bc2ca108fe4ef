"""Retire pools: end what hosts are left of pools that were removed from the settings.

Their leases are billed until they end, and no other sweep looks at such a pool.
"""

import logging
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from headrace.domain.hosts import HostEnd
from headrace.domain.ids import new_id
from headrace.store.fleet import hosts
from headrace.store.fleet.removed_pools import endable, is_served_elsewhere, notice, removed_pools
from scheduler.deps import ControlDeps
from scheduler.fleet.move_hosts import HostMover
from scheduler.fleet.note_hosts import SILENT

log = logging.getLogger(__name__)

#: A pool is retired if no other process has looked after it for so long, and for so many intervals of the autoscaler.
#: While processes are restarted one by one, another one may have settings with the pool: older or newer ones.
UNSERVED = timedelta(seconds=60)
UNSERVED_INTERVALS = 3


class PoolRetirer:
    """Ends the leases of removed pools. In the mode `active` it drains and ends their machines too."""

    def __init__(self, deps: ControlDeps, make_mover: Callable[[str], HostMover] | None = None) -> None:
        """Args: make_mover: makes the mover of a pool; None in the mode `advisory`, in which nothing is moved."""
        self._deps, self._make_mover = deps, make_mover
        self._holder: UUID = new_id()
        self._movers: dict[str, HostMover] = {}
        self._told: set[str] = set()

    def __call__(self) -> int:
        """Retire each removed pool that has leases.

        Bound: `UNSERVED`, then as `note_hosts` or `HostMover`.
        Returns: leases or hosts that were ended, drained or moved.
        Raises: StoreUnavailable.
        """
        with self._deps.store.begin() as db:
            pools = removed_pools(db, self._deps.settings.own_pools)
        for pool in sorted(set(pools) - self._told):
            log.warning("pool_removed", extra={"pool": pool, "notice": notice(pool, self._deps.settings.scaling.mode)})
        self._told = set(pools)
        self._movers = {pool: mover for pool, mover in self._movers.items() if pool in pools}
        return sum(self._retire(pool) for pool in pools)

    def _retire(self, pool: str) -> int:
        if self._make_mover is not None and pool not in self._movers:
            self._movers[pool] = self._make_mover(pool)
        mover = self._movers.get(pool)
        within = max(UNSERVED, UNSERVED_INTERVALS * timedelta(seconds=self._deps.settings.autoscale_every_s))
        with self._deps.store.begin() as db:
            is_served = is_served_elsewhere(db, pool, mover.holder if mover else self._holder, within)
            # Where machines are moved, only the provider's list shows that a machine is gone.
            ended = hosts.end_silent(db, pool, SILENT, unordered_only=is_served or mover is not None)
            drains = mover is not None and not is_served
            # As after a decision: if the pool returns to the settings, the autoscaler may call them back.
            drained = hosts.drain(db, endable(db, pool), HostEnd.SCALED_DOWN) if drains else []
        for event, ids in (("host_ended", ended), ("host_drained", drained)):
            for host_id in ids:
                log.info(event, extra={"pool": pool, "host": host_id})
        return len(ended) + len(drained) + (mover() if mover is not None and drains else 0)
