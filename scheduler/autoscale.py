"""Autoscale: decide how many hosts each pool should have, and record the decision with its reason.

Advisory: nothing carries a decision out yet. Knows neither Celery nor how hosts are made.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection

from headrace.domain.fleet import QueueSample, ScalingRecord
from headrace.domain.queues import lane_queues
from headrace.domain.scaling import Decision, History, Moment, PoolHosts
from headrace.policies import scaling
from headrace.policies.scaling.replay import DecisionInputs, to_json
from headrace.store import clock, locks
from headrace.store.fleet import decisions, observations, workers
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
        return {pool: _decide(deps, db, pool, count) for pool, count in hosts.items()}


def _decide(deps: ControlDeps, db: Connection, pool: str, ready: int) -> Decision:
    policy, now = deps.settings.scaling.of_pool(pool), clock.now(db)
    since = now - timedelta(seconds=policy.window_s)
    samples = observations.recent_samples(db, lane_queues(pool), since)
    history = History(moments_of(samples, deps.settings.observe_every_s))
    changed_at = decisions.last_change_at(db, pool)
    hosts = PoolHosts(ready, up_at=changed_at, down_at=changed_at)
    decision = scaling.decide(history, hosts, policy, now)
    inputs = to_json(DecisionInputs(history, hosts, policy, now))
    record = ScalingRecord(pool, policy.mode, hosts.count, decision.target, decision.reason, inputs)
    decisions.add(db, record)
    facts = {"pool": pool, "hosts": hosts.count, "target": decision.target, "reason": decision.reason}
    log.info("scaling_decided", extra=facts)
    return decision


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
