"""Note hosts: keep leases of a pool's hosts where the autoscaler moves none, so that their hours are billed.

In the mode `advisory` an operator, or another system, starts and ends the machines. Their workers are all that shows
it. `move_hosts` does the same in the mode `active`.
"""

import logging
from datetime import timedelta

from headrace.store import locks
from headrace.store.fleet import hosts
from headrace.store.fleet.hosts import HostPrice
from scheduler.deps import ControlDeps

log = logging.getLogger(__name__)

#: A lease ends after its workers were silent for so long, as of their last sign of life: a worker may start again.
SILENT = timedelta(seconds=60)


def note_hosts(deps: ControlDeps, pool: str) -> int:
    """Give a lease to each host whose workers live, and end those whose workers do not.

    Bound: one sweep, and for an end `SILENT`.
    Returns: leases that began or ended.
    """
    with deps.store.begin() as db:
        locks.take(db, f"note_hosts.{pool}")
        price = HostPrice.of(deps.settings, pool)
        found = [hosts.adopt(db, pool, stray, price, None) for stray in hosts.strays(db, pool)]
        adopted = [host_id for host_id in found if host_id is not None]
        hosts.note_ready(db, pool)
        ended = hosts.end_silent(db, pool, SILENT)
    for event, ids in (("host_adopted", adopted), ("host_ended", ended)):
        for host_id in ids:
            log.info(event, extra={"pool": pool, "host": host_id})
    return len(adopted) + len(ended)
