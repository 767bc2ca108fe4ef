"""Autoscale: decide how many hosts each pool should have, and record the decision with its reason.

In the mode `active` the same transaction writes what the decision wants into the hosts' leases. `move_hosts` carries it
out: nothing here calls a provider. Knows neither Celery nor how hosts are made.
"""

import logging
import math
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from headrace.config import ScalingSettings, Settings
from headrace.domain.fleet import ScalingRecord
from headrace.domain.hosts import HostEnd, HostState
from headrace.domain.limits import MINUTE_S
from headrace.domain.scaling import Action, Decision, PoolHosts
from headrace.errors import BrokerUnavailable
from headrace.policies.scaling.decisions import VERSION, DecisionInputs, decide, to_json
from headrace.store import clock, locks
from headrace.store.fleet import decisions, hosts, workers
from headrace.store.fleet.hosts import HostPrice
from headrace.store.scaling import capacity
from headrace.store.scaling import scaling_history as past
from headrace.store.scaling.capacity import capacity_of, provisioning
from scheduler.deps import ControlDeps

log = logging.getLogger(__name__)


def autoscale(deps: ControlDeps) -> dict[str, Decision]:
    """Decide for every pool with its own workers, one row each.

    Safe to repeat: a pool for which a decision was made less than half an interval ago is left out.
    Raises: LockHeld: another process decides. StoreUnavailable.
    """
    spills = {pool: _spill_tokens_per_s(deps, pool) for pool in deps.settings.own_pools}
    with deps.store.begin() as db:
        locks.take(db, "autoscale")
        made = {pool: _decide(deps, db, pool, limit) for pool, limit in spills.items() if _is_due(deps, db, pool)}
    for pool, (decision, facts) in made.items():
        about = {"pool": pool, "action": str(decision.action), "target": decision.target, "reason": decision.reason}
        log.info("scaling_decided", extra={**about, **facts})
        deps.tallies.decisions.add(pool, str(decision.action))
    return {pool: decision for pool, (decision, _) in made.items()}


def _is_due(deps: ControlDeps, db: Connection, pool: str) -> bool:
    """Whether this tick is not the same one of another beat, or of another control process."""
    last_at = decisions.last_at(db, pool)
    return last_at is None or clock.now(db) - last_at >= timedelta(seconds=deps.settings.autoscale_every_s / 2)


def _decide(
    deps: ControlDeps, db: Connection, pool: str, spill_tokens_per_s: float | None
) -> tuple[Decision, dict[str, Any]]:
    """Decide and write the decision; returns it, and what was done about it."""
    policy, now = deps.settings.scaling.of_pool(pool), clock.now(db)
    found = pool_hosts(db, deps.settings, pool, now, spill_tokens_per_s)
    history = past.load(db, deps.settings, pool, found, now)
    decision = decide(history, found, policy, now)
    inputs = to_json(DecisionInputs(history, found, policy, now))
    decision_id = decisions.add(db, _record(pool, policy, found, decision, inputs))
    facts: dict[str, Any] = {"decision": decision_id, "hosts": found.count}
    if policy.mode == "active":
        facts |= _intend(deps, db, pool, decision_id, decision.target - found.count)
    return decision, facts


def pool_hosts(
    db: Connection, settings: Settings, pool: str, now: datetime, spill_tokens_per_s: float | None = None
) -> PoolHosts:
    """The hosts of a pool, and all that a decision goes by beside its history.

    Args: spill_tokens_per_s: tokens that the paid API can take; None if its limit is unknown.
    """
    policy = settings.scaling.of_pool(pool)
    price = HostPrice.of(settings, pool)
    measured = capacity_of(db, settings, pool, now)
    spill_usd = capacity.job_usd(db, settings, pool)
    ready, requested, draining = _host_counts(db, pool, is_active=policy.mode == "active")
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


def _host_counts(db: Connection, pool: str, *, is_active: bool) -> tuple[int, int, int]:
    """Ready, requested and draining hosts: in the mode `advisory` those with live workers.

    There a lease tells nothing sooner: `note_hosts` ends it a minute after the last worker has died.
    """
    if not is_active:
        fleet = workers.fleets(db).get(pool)
        return fleet.hosts if fleet else 0, 0, 0
    states = [host.lease.state for host in hosts.work(db, pool) if not host.is_silent]
    ready, requested, draining = (
        states.count(state) for state in (HostState.READY, HostState.REQUESTED, HostState.DRAINING)
    )
    return ready, requested, draining


def _record(
    pool: str, policy: ScalingSettings, found: PoolHosts, decision: Decision, inputs: dict[str, Any]
) -> ScalingRecord:
    forecast = decision.forecast
    return ScalingRecord(
        pool=pool,
        mode=policy.mode,
        hosts=found.count,
        target=decision.target,
        reason=decision.reason,
        inputs=inputs,
        action=decision.action,
        policy=policy.policy,
        version=VERSION,
        need=decision.need,
        spare_need=decision.spare_need,
        forecast_tokens_per_s=None if forecast is None else forecast.tokens_per_s,
        forecast_at=None if forecast is None else forecast.at,
        burst_until=decision.burst_until,
    )


def _intend(deps: ControlDeps, db: Connection, pool: str, decision_id: int, change: int) -> dict[str, Any]:
    """Write what the decision wants into the leases; returns the hosts that it concerns.

    A change that needs no provider is applied now: a host that drains takes no more jobs, and one that is called back
    takes them again. Orders are applied when the provider has accepted them, and until then none is added.
    """
    if change > 0:
        called = hosts.call_back(db, pool, change)
        # Hosts whose workers fell silent serve nothing, but their machines exist.
        room = deps.settings.scaling.of_pool(pool).max_hosts - hosts.count_serving(db, pool)
        # Each tick of a policy that adds steps would add another, as long as a provider that fails accepts none.
        wanted = 0 if hosts.has_unaccepted(db, pool) else max(0, min(change - len(called), room))
        ordered = hosts.add_orders(db, pool, wanted, HostPrice.of(deps.settings, pool), decision_id)
        if called and not ordered:
            decisions.note_applied(db, decision_id)
        return {"called_back": called, "ordered": ordered}
    drained = hosts.drain(db, hosts.cheapest(db, pool, -change), HostEnd.SCALED_DOWN, decision_id) if change else []
    if drained:
        decisions.note_applied(db, decision_id)
    return {"drained": drained}


def _spill_tokens_per_s(deps: ControlDeps, pool: str) -> float | None:
    """Tokens that the paid API takes per second, by the limit that its answers report; None if they report none.

    During a pause that the provider asked for, the limit is not known. A pause is shorter than a host takes to come.
    """
    if deps.settings.openai_api_key is None:
        return None
    model = deps.settings.overflow.paid_model(deps.settings.pools[pool].model)
    try:
        most_tokens = deps.pace.left(model).most_tokens
    except BrokerUnavailable:
        return None
    return most_tokens / MINUTE_S if 0 < most_tokens < math.inf else None
