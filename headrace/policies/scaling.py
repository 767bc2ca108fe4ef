"""How many hosts a pool should have, and why. Pure: `scheduler/autoscale.py` records the decision."""

from dataclasses import dataclass
from datetime import datetime

from headrace.config import ScalingSettings


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A pool at its last observation, summed over its lanes.

    Attributes:
        depth: waiting jobs.
        running: jobs that run on its workers.
        slots: jobs that its workers can run at once.
    """

    at: datetime
    depth: int
    running: int
    slots: int

    @property
    def load(self) -> float:
        """Share of the slots in use. Without slots: 1 if any job waits or runs, else 0."""
        if self.slots == 0:
            return 1.0 if self.depth or self.running else 0.0
        return self.running / self.slots


@dataclass(frozen=True, slots=True)
class PoolHosts:
    """The pool's hosts now.

    Attributes:
        last_change_at: when a decision last changed the number of hosts; None for never.
    """

    hosts: int
    last_change_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The number of hosts to have. If it equals the present number, nothing changes."""

    target: int
    reason: str


def decide(snapshot: Snapshot | None, fleet: PoolHosts, policy: ScalingSettings, now: datetime) -> Decision:
    """React to the last snapshot: scale up when jobs wait or slots run out, down when most slots are idle.

    The minimum always applies. The maximum needs a fresh snapshot; any other change needs also that the cooldown of
    the last change is over.
    """
    hosts = fleet.hosts
    stale = _stale(snapshot, policy, now)
    wanted = Decision(hosts, stale) if snapshot is None or stale else _react(snapshot, hosts, policy)
    if hosts < policy.min_hosts:
        if wanted.target > policy.min_hosts:
            return wanted
        return Decision(policy.min_hosts, f"up: {hosts} hosts are fewer than the minimum of {policy.min_hosts}")
    if stale:
        return wanted
    if hosts > policy.max_hosts:
        return Decision(policy.max_hosts, f"down: {hosts} hosts are more than the maximum of {policy.max_hosts}")
    if wanted.target == hosts:
        return wanted
    rest_s = _cooldown_left_s(fleet, policy, now)
    if rest_s > 0:
        return Decision(hosts, f"hold: the last change cools down for another {rest_s:.0f} s; {wanted.reason}")
    return wanted


def _stale(snapshot: Snapshot | None, policy: ScalingSettings, now: datetime) -> str:
    """Why the snapshot is too old or missing; empty if it is fresh."""
    if snapshot is None:
        return "hold: the pool was never observed"
    age_s = (now - snapshot.at).total_seconds()
    if age_s > policy.stale_after_s:
        return f"hold: the newest sample is {age_s:.0f} s old, more than {policy.stale_after_s:g} s"
    return ""


def _cooldown_left_s(fleet: PoolHosts, policy: ScalingSettings, now: datetime) -> float:
    """Seconds until the next change is allowed; 0 or less if it is allowed now."""
    if fleet.last_change_at is None:
        return 0.0
    return policy.cooldown_s - (now - fleet.last_change_at).total_seconds()


def _react(snapshot: Snapshot, hosts: int, policy: ScalingSettings) -> Decision:
    """The decision of the thresholds, within the minimum and the maximum."""
    depth, load = snapshot.depth, snapshot.load
    up = min(hosts + policy.up_step, policy.max_hosts)
    down = max(hosts - policy.down_step, policy.min_hosts)
    if depth > policy.up_depth:
        return _step(hosts, up, f"depth {depth} is above {policy.up_depth}", policy)
    if load > policy.up_load:
        return _step(hosts, up, f"load {load:.2f} is above {policy.up_load:.2f}", policy)
    if load < policy.down_load:
        return _step(hosts, down, f"load {load:.2f} is below {policy.down_load:.2f}", policy)
    return Decision(hosts, f"hold: depth {depth} and load {load:.2f} are within bounds")


def _step(hosts: int, target: int, why: str, policy: ScalingSettings) -> Decision:
    if target == hosts:
        return Decision(hosts, f"hold: {why}, at the limit of {policy.min_hosts} to {policy.max_hosts} hosts")
    return Decision(target, f"{'up' if target > hosts else 'down'}: {why}")
