"""Autoscale: decide how many hosts each pool should have, and record the decision with its reason.

In the mode `active` the same transaction writes what the decision wants into the hosts' leases. `move_hosts` carries it
out: nothing here calls a provider. Knows neither Celery nor how hosts are made.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from headrace.config import ScalingSettings
from headrace.domain.fleet import QueueSample, ScalingRecord
from headrace.domain.hosts import HostEnd, HostState
from headrace.domain.queues import lane_queues
from headrace.domain.scaling import Action, Decision, History, Moment, PoolHosts
from headrace.policies import scaling
from headrace.policies.scaling.replay import DecisionInputs, to_json
from headrace.store import clock, locks
from headrace.store.fleet import decisions, hosts, observations, workers
from headrace.store.fleet.hosts import HostPrice
from scheduler.deps import ControlDeps

log = logging.getLogger(__name__)


def autoscale(deps: ControlDeps) -> dict[str, Decision]:
    """Decide for every pool with its own workers, one row each; empty while another process decides.

    Safe to repeat: a pool for which a decision was made less than half an interval ago is left out.
    Raises: StoreUnavailable.
    """
    with deps.store.begin() as db:
        if not locks.try_take(db, "autoscale"):
            return {}
        made = {pool: _decide(deps, db, pool) for pool in deps.settings.own_pools if _is_due(deps, db, pool)}
    for pool, (decision, facts) in made.items():
        about = {"pool": pool, "action": str(decision.action), "target": decision.target, "reason": decision.reason}
        log.info("scaling_decided", extra={**about, **facts})
    return {pool: decision for pool, (decision, _) in made.items()}


def _is_due(deps: ControlDeps, db: Connection, pool: str) -> bool:
    """Whether this tick is not the same one of another beat, or of another control process."""
    last_at = decisions.last_at(db, pool)
    return last_at is None or clock.now(db) - last_at >= timedelta(seconds=deps.settings.autoscale_every_s / 2)


def _decide(deps: ControlDeps, db: Connection, pool: str) -> tuple[Decision, dict[str, Any]]:
    """Decide and write the decision; returns it, and what was done about it."""
    policy, now = deps.settings.scaling.of_pool(pool), clock.now(db)
    history, found = _history(deps, db, pool, policy, now), _hosts(db, pool, policy)
    decision = scaling.decide(history, found, policy, now)
    inputs = to_json(DecisionInputs(history, found, policy, now))
    decision_id = decisions.add(db, _record(pool, policy, found, decision, inputs))
    facts: dict[str, Any] = {"decision": decision_id, "hosts": found.count}
    if policy.mode == "active":
        facts |= _intend(deps, db, pool, decision_id, decision.target - found.count)
    return decision, facts


def _record(
    pool: str, policy: ScalingSettings, found: PoolHosts, decision: Decision, inputs: dict[str, Any]
) -> ScalingRecord:
    forecast = decision.forecast
    return ScalingRecord(
        *(pool, policy.mode, found.count, decision.target, decision.reason, inputs),
        action=decision.action,
        policy=policy.policy,
        version=scaling.VERSION,
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


def _history(deps: ControlDeps, db: Connection, pool: str, policy: ScalingSettings, now: datetime) -> History:
    samples = observations.recent_samples(db, lane_queues(pool), now - timedelta(seconds=policy.window_s))
    return History(moments_of(samples, deps.settings.observe_every_s))


def _hosts(db: Connection, pool: str, policy: ScalingSettings) -> PoolHosts:
    up_at, down_at = (decisions.last_applied_at(db, pool, action) for action in (Action.UP, Action.DOWN))
    if policy.mode != "active":
        fleet = workers.fleets(db).get(pool)
        return PoolHosts(fleet.hosts if fleet else 0, up_at=up_at, down_at=down_at)
    states = [host.lease.state for host in hosts.work(db, pool) if not host.is_silent]
    count = {state: states.count(state) for state in HostState}
    return PoolHosts(
        count[HostState.READY],
        count[HostState.REQUESTED],
        count[HostState.DRAINING],
        up_at=up_at,
        down_at=down_at,
    )


def moments_of(samples: Sequence[QueueSample], every_s: float) -> tuple[Moment, ...]:
    """The samples of one pool's lanes, added up for each time at which they were taken.

    Args:
        every_s: how often samples are taken, which is the length of the first interval.
    """
    lanes: defaultdict[datetime, list[QueueSample]] = defaultdict(list)
    for sample in samples:
        lanes[sample.at].append(sample)
    ends = sorted(lanes)
    starts = [end - timedelta(seconds=every_s) for end in ends[:1]] + ends[:-1]
    spans = zip(starts, ends, strict=True)
    return tuple(_moment(end, (end - start).total_seconds(), lanes[end]) for start, end in spans)


def _moment(at: datetime, seconds: float, samples: Sequence[QueueSample]) -> Moment:
    return Moment(
        at=at,
        seconds=seconds,
        offered_jobs=sum(sample.offered for sample in samples),
        offered_tokens=sum(sample.offered_tokens for sample in samples),
        refused_jobs=sum(sample.refused for sample in samples),
        spilled_jobs=sum(sample.spilled for sample in samples),
        depth=sum(sample.depth for sample in samples),
        depth_tokens=sum(sample.depth_tokens for sample in samples),
        running=sum(sample.running for sample in samples),
        # Not a sum: the sample of each lane reports all slots of the pool.
        slots=max(sample.slots for sample in samples),
    )
