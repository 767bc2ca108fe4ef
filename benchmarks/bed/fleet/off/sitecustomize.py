"""Takes the choice of hosts away, for a counter-proof: with this folder on PYTHONPATH, and nowhere else.

Python runs this at its start. The oldest hosts are removed first, as a provider's group does it, whatever they run.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from headrace.store.fleet import hosts


def oldest(db: Connection, pool: str, count: int) -> Sequence[str]:
    """The ids of up to so many ready hosts, the oldest first."""
    ready = [each.lease for each in hosts.work(db, pool) if each.lease.ready_at and each.lease.drain_at is None]
    return [lease.id for lease in sorted(ready, key=lambda lease: lease.requested_at)[:count]]


hosts.cheapest = oldest
