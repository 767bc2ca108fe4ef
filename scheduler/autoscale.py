"""Autoscale: decide how many hosts each pool should have, and record the decision with its reason.

Advisory: nothing carries a decision out yet. Knows neither Celery nor how hosts are made.
"""

import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from headrace.config import ScalingSettings
from headrace.domain.fleet import QueueSample, ScalingRecord
from headrace.domain.queues import lane_queues
from headrace.policies import scaling
from headrace.policies.scaling import Decision, Snapshot
from headrace.store import clock, locks
from headrace.store.fleet import observations, workers
from scheduler.deps import ControlDeps

log = logging.getLogger(__name__)


def autoscale(deps: ControlDeps) -> dict[str, Decision]:
    """Decide for every pool with its own workers, one row each; empty while another process decides.

    Safe to repeat: a second run finds the first one's change still in its cool-down.
    Raises: StoreUnavailable.
    """
    with deps.store.begin() as db:
        if not locks.try_take(db, "autoscale"):
            return {}
        fleets = workers.fleets(db)
        hosts = {pool: fleets[pool].hosts if pool in fleets else 0 for pool in deps.settings.own_pools}
        return {pool: _decide(db, pool, count, deps.settings.scaling) for pool, count in hosts.items()}


def _decide(db: Connection, pool: str, hosts: int, policy: ScalingSettings) -> Decision:
    snapshot = snapshot_of(observations.newest_samples(db, lane_queues(pool)))
    fleet = scaling.PoolHosts(hosts, observations.last_change_at(db, pool))
    decision = scaling.decide(snapshot, fleet, policy, clock.now(db))
    inputs = _inputs(snapshot, fleet, policy)
    record = ScalingRecord(pool, policy.mode, hosts, decision.target, decision.reason, inputs)
    observations.add_decision(db, record)
    facts = {"pool": pool, "hosts": hosts, "target": decision.target, "reason": decision.reason}
    log.info("scaling_decided", extra=facts)
    return decision


def snapshot_of(samples: Sequence[QueueSample]) -> Snapshot | None:
    """The sum of one pool's newest samples, one per lane, with the time of the oldest. None without samples."""
    if not samples:
        return None
    return Snapshot(
        at=min(sample.at for sample in samples),
        depth=sum(sample.depth for sample in samples),
        running=sum(sample.running for sample in samples),
        # Not a sum: the sample of each lane reports all slots of the pool.
        slots=max(sample.slots for sample in samples),
    )


def _inputs(snapshot: Snapshot | None, fleet: scaling.PoolHosts, policy: ScalingSettings) -> dict[str, Any]:
    """All inputs of the decision, so that it can be replayed."""
    seen: dict[str, Any] = {}
    if snapshot is not None:
        seen = {"sampled_at": snapshot.at.isoformat(), "depth": snapshot.depth, "load": round(snapshot.load, 4)}
        seen |= {"running": snapshot.running, "slots": snapshot.slots}
    changed = fleet.last_change_at.isoformat() if fleet.last_change_at else None
    return {**seen, "last_change_at": changed, "policy": policy.model_dump(mode="json")}
