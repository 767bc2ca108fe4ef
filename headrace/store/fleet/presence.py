"""Which hosts are there: their leases, joined with the live workers that name them."""

from collections import defaultdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.domain.hosts import HostCounts, HostEnd
from headrace.tables import hosts, workers

_IS_LIVE = hosts.c.ended_at.is_(None)
_IS_WRITTEN_OFF = hosts.c.end_reason.is_not_distinct_from(HostEnd.WRITTEN_OFF)


def live_workers() -> sa.Select[Any]:
    """Select each live worker: its id, its pool, its host, and whether it is draining.

    The host is the id of its lease. A worker without a lease has a host of its own name: no decision ordered it, or
    its lease has ended.
    """
    names_it = sa.or_(hosts.c.id == workers.c.host_id, hosts.c.provider_id == workers.c.host_id)
    lease = (
        sa.select(hosts.c.id, hosts.c.drain_at)
        .where(hosts.c.pool == workers.c.pool, _IS_LIVE, names_it)
        # One at most, so that no worker counts twice: a host may be adopted before its order has its provider's id.
        .order_by(hosts.c.id != workers.c.host_id)
        .limit(1)
        .lateral("lease")
    )
    is_draining = sa.or_(workers.c.draining, lease.c.drain_at.is_not(None))
    return (
        sa.select(
            workers.c.id,
            workers.c.pool,
            sa.func.coalesce(lease.c.id, workers.c.host_id).label("host"),
            lease.c.id.label("lease"),
            is_draining.label("is_draining"),
        )
        .join_from(workers, lease, sa.true(), isouter=True)
        .where(workers.c.lease_until > sa.func.now())
    )


def count_hosts(db: Connection) -> dict[str, HostCounts]:
    """The hosts of each pool by their state; a pool without any is absent."""
    live = live_workers().subquery()
    present = (
        sa.select(live.c.pool, live.c.host, live.c.lease, sa.func.bool_and(live.c.is_draining).label("is_draining"))
        .group_by(live.c.pool, live.c.host, live.c.lease)
        .subquery()
    )
    leases = sa.select(hosts).where(_IS_LIVE, sa.not_(_IS_WRITTEN_OFF)).subquery()
    here = sa.and_(present.c.lease == leases.c.id, present.c.pool == leases.c.pool)
    is_here, is_draining = present.c.host.is_not(None), sa.or_(leases.c.drain_at.is_not(None), present.c.is_draining)
    both = sa.select(
        sa.func.coalesce(leases.c.pool, present.c.pool).label("pool"),
        sa.case((is_draining, "draining"), (is_here, "ready"), (leases.c.ready_at.is_(None), "requested")).label(
            "state"
        ),
        sa.func.count().label("hosts"),
    ).select_from(leases.outerjoin(present, here, full=True))
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for pool, state, num_hosts in db.execute(both.group_by(sa.literal_column("1"), sa.literal_column("2"))):
        if state is not None:
            counts[pool][state] = num_hosts
    return {pool: HostCounts(**states) for pool, states in counts.items()}
