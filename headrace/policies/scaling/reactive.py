"""The policy `reactive`: compare depth and load with thresholds. It needs no forecast and no price."""

from datetime import datetime
from operator import attrgetter
from statistics import fmean

from headrace.config import ScalingSettings
from headrace.domain.scaling import Action, Decision, DemandHistory, PoolHosts
from headrace.policies.scaling.bounds import hold, move, since, staleness

#: How far back `reactive` looks, as a share of the policy's window: 2 of 10 minutes.
RECENT_SHARE = 1 / 5


def decide(history: DemandHistory, hosts: PoolHosts, policy: ScalingSettings, now: datetime) -> Decision:
    """Scale up when jobs wait or slots run out, down when most slots are idle, by the means of the last two minutes."""
    stale = staleness(history, policy, now)
    if stale:
        return hold(hosts, stale)
    wanted = _react(history, hosts, policy)
    rest_s = cooldown_left_s(hosts, policy, now)
    if wanted.action is Action.HOLD or rest_s <= 0:
        return wanted
    return hold(hosts, f"the last change cools down for another {rest_s:.0f} s; {wanted.reason}")


def cooldown_left_s(hosts: PoolHosts, policy: ScalingSettings, now: datetime) -> float:
    """Seconds until the next change is allowed; 0 or less if it is allowed now."""
    changes = [at for at in (hosts.up_at, hosts.down_at) if at is not None]
    return policy.cooldown_s - (now - max(changes)).total_seconds() if changes else 0.0


def _react(history: DemandHistory, hosts: PoolHosts, policy: ScalingSettings) -> Decision:
    moments = since(history, policy.window_s * RECENT_SHARE)
    depth, running, slots = (fmean(map(attrgetter(name), moments)) for name in ("depth", "running", "slots"))
    # The share of running slots in use. Without slots: 1 if any job waits or runs.
    load = running / slots if slots > 0 else float(depth > 0 or running > 0)
    up, down = hosts.count + policy.up_step, hosts.count - policy.down_step
    if depth > policy.up_depth:
        return move(hosts, up, f"depth {depth:.0f} is above {policy.up_depth}", policy)
    if load > policy.up_load:
        return move(hosts, up, f"load {load:.2f} is above {policy.up_load:.2f}", policy)
    if load < policy.down_load:
        return move(hosts, down, f"load {load:.2f} is below {policy.down_load:.2f}", policy)
    return hold(hosts, f"depth {depth:.0f} and load {load:.2f} are within bounds")
