"""How long a host may take to become ready before it is written off."""

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.config import Settings
from headrace.domain.hosts import HostEnd
from headrace.store.fleet.provisioning import provisioning
from headrace.tables import hosts

#: A host may take so much longer than 99 % of its type did.
FACTOR = 1.5
#: The time doubles for each order in a row of which no host came, at most so often.
MOST_DOUBLINGS = 3


def write_off(db: Connection, settings: Settings, instance_type: str | None) -> timedelta:
    """The time after which a host of this type that is not ready yet never will be.

    A host that is written off is ended, so it is never measured. If hosts take longer than they used to, or than
    `provision_s` says, all would be written off forever: that is why the time grows until one comes.
    """
    doublings = min(_failed_orders(db, instance_type), MOST_DOUBLINGS)
    return timedelta(seconds=FACTOR * provisioning(db, settings, instance_type).p99_s * 2**doublings)


def _failed_orders(db: Connection, instance_type: str | None) -> int:
    """The orders whose hosts were written off since the last of which one came. Hosts of an order share their time."""
    is_of_type = (hosts.c.instance_type.is_not_distinct_from(instance_type), ~hosts.c.is_adopted)
    came_at = sa.select(sa.func.max(hosts.c.requested_at)).where(*is_of_type, hosts.c.ready_at.is_not(None))
    is_later = hosts.c.requested_at > sa.func.coalesce(came_at.scalar_subquery(), sa.text("'-infinity'::timestamptz"))
    failed = sa.select(sa.func.count(hosts.c.requested_at.distinct())).where(
        *is_of_type, is_later, hosts.c.ready_at.is_(None), hosts.c.end_reason == HostEnd.WRITTEN_OFF
    )
    return db.scalar(failed) or 0
