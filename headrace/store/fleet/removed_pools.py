"""Pools that are not in the settings any more, and whose hosts have leases that have not ended."""

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.store import clock
from headrace.store.fleet import actors, decisions
from headrace.store.fleet.hosts import UNORDERED
from headrace.tables import hosts

_IS_LIVE = hosts.c.ended_at.is_(None)


def removed_pools(db: Connection, own_pools: Collection[str]) -> list[str]:
    """The pools of leases that have not ended, without these, by name."""
    leased = sa.select(hosts.c.pool).where(_IS_LIVE).distinct()
    return sorted(set(db.scalars(leased)) - set(own_pools))


def is_served_elsewhere(db: Connection, pool: str, holder: UUID, within: timedelta) -> bool:
    """Whether another control process looked after the pool within this time.

    Each sweep of a process whose settings have the pool claims it in mode `active`, and each of its decisions is a row
    in any mode. A process that retires the pool claims it too.
    """
    decided_at = decisions.last_at(db, pool)
    is_decided = decided_at is not None and clock.now(db) - decided_at < within
    return is_decided or actors.was_held_by_another(db, pool, holder, within)


def endable(db: Connection, pool: str) -> list[str]:
    """The hosts of a pool that do not drain yet. Not those that no actuator knows and so could end."""
    serving = (hosts.c.pool == pool, _IS_LIVE, hosts.c.drain_at.is_(None), ~UNORDERED)
    return sorted(db.scalars(sa.select(hosts.c.id).where(*serving)))


def notice(pool: str, mode: str) -> str:
    """What happens to the hosts of a removed pool, and what the operator must do. Args: mode: of `[scaling]`."""
    about = f"headrace.toml has no pool '{pool}' with hosts of its own."
    if mode == "active":
        return (
            f"{about} Its hosts drain and are ended. Keep its group or Deployment in the settings until then, and end"
            " machines that the actuator does not know yourself."
        )
    return f"{about} Each lease ends a minute after its workers' last sign of life: end the machines yourself."
