"""A pool's hosts now, and what a host means: what it does and costs, and how long it takes to come."""

from datetime import datetime

from sqlalchemy import Connection

from headrace.config import Settings
from headrace.domain.hosts import HostState
from headrace.domain.scaling import Action, PoolHosts
from headrace.store.fleet import decisions, hosts, workers
from headrace.store.fleet.hosts import HostPrice
from headrace.store.fleet.provisioning import provisioning
from headrace.store.scaling import spill
from headrace.store.scaling.capacity import capacity


def load(
    db: Connection, settings: Settings, pool: str, now: datetime, spill_tokens_per_s: float | None = None
) -> PoolHosts:
    """The hosts of a pool, and all that a decision goes by beside its history.

    Args: spill_tokens_per_s: tokens that the paid API can take; None if its limit is unknown.
    """
    policy = settings.scaling.of_pool(pool)
    price = HostPrice.of(settings, pool)
    measured = capacity(db, settings, pool, now)
    spill_usd = spill.job_usd(db, settings, pool)
    ready, requested, draining = _counts(db, pool, is_active=policy.mode == "active")
    return PoolHosts(
        ready,
        requested,
        draining,
        tokens_per_s=measured.tokens_per_s,
        slots_per_host=measured.slots_per_host,
        provision_s=provisioning(db, settings, price.instance_type).p90_s,
        usd_per_hour=None if price.usd_per_hour is None else float(price.usd_per_hour),
        spill_usd=spill_usd,
        spill_tokens_per_s=None if spill_usd is None else spill_tokens_per_s,
        up_at=decisions.last_applied_at(db, pool, Action.UP),
        down_at=decisions.last_applied_at(db, pool, Action.DOWN),
    )


def _counts(db: Connection, pool: str, *, is_active: bool) -> tuple[int, int, int]:
    """Ready, requested and draining hosts. In the mode `advisory` hosts have no leases, only workers."""
    if not is_active:
        fleet = workers.fleets(db).get(pool)
        return fleet.hosts if fleet else 0, 0, 0
    states = [host.lease.state for host in hosts.work(db, pool) if not host.is_silent]
    ready, requested, draining = (
        states.count(state) for state in (HostState.READY, HostState.REQUESTED, HostState.DRAINING)
    )
    return ready, requested, draining
