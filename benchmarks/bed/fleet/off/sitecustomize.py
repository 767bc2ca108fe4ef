"""Takes mechanisms away, for a counter-proof: `FLEET_OFF=a,b` and this folder on PYTHONPATH, and nowhere else.

Python runs this at its start. `drain`: the oldest hosts are removed first, as a provider's group does it, whatever they
run; `discount`: each refused job is demand, however often its request is repeated and whatever its app was served.
"""

import os

OFF = os.environ.get("FLEET_OFF", "").split(",")  # noqa: TID251 - no setting: the product knows nothing of it.

if "drain" in OFF:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from headrace.store.fleet import hosts

    def oldest(db: Connection, pool: str, count: int) -> Sequence[str]:
        """The ids of this number of ready hosts at most, the oldest first."""
        ready = [each.lease for each in hosts.work(db, pool) if each.lease.ready_at and each.lease.drain_at is None]
        return [lease.id for lease in sorted(ready, key=lambda lease: lease.requested_at)[:count]]

    hosts.cheapest = oldest
if "discount" in OFF:
    from api.door import refusals
    from scheduler import observe

    refusals.mark_of = lambda app_id, name: None
    observe.counted_shares = lambda refused, *_: dict.fromkeys(refused, 1.0)
