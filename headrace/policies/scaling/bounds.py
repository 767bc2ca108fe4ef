"""What holds for every policy: the minimum, the maximum, what is recent, and no removal on stale observations."""

from dataclasses import replace
from datetime import datetime, timedelta
from operator import attrgetter

from headrace.config import ScalingSettings
from headrace.domain.scaling import Action, Decision, DemandHistory, Moment, PoolHosts


def staleness(history: DemandHistory, policy: ScalingSettings, now: datetime) -> str:
    """Why the observations decide nothing: they are missing, or too old. Empty if they are fresh."""
    if not history.moments:
        return "the pool was never observed, or not lately"
    age_s = (now - history.moments[-1].at).total_seconds()
    if age_s > policy.stale_after_s:
        return f"the newest sample is {age_s:.0f} s old, more than {policy.stale_after_s:g} s"
    return ""


def clamped(target: int, policy: ScalingSettings) -> int:
    """The target within the minimum and the maximum."""
    return max(policy.min_hosts, min(policy.max_hosts, target))


def hold(hosts: PoolHosts, why: str) -> Decision:
    """The decision to change nothing."""
    return Decision(hosts.count, Action.HOLD, f"hold: {why}")


def move(hosts: PoolHosts, target: int, why: str, policy: ScalingSettings) -> Decision:
    """The decision for a target within the minimum and the maximum; to hold if that is the present number."""
    target = clamped(target, policy)
    if target == hosts.count:
        return hold(hosts, f"{why}, at the limit of {policy.min_hosts} to {policy.max_hosts} hosts")
    action = Action.UP if target > hosts.count else Action.DOWN
    return Decision(target, action, f"{action}: {why}")


def within_bounds(wanted: Decision, hosts: PoolHosts, policy: ScalingSettings, stale: str) -> Decision:
    """What of a wanted decision is allowed.

    Args: stale: why nothing may be removed; empty if the observations are fresh.
    """
    count, target = hosts.count, clamped(wanted.target, policy)
    if target < count and stale:
        return replace(wanted, target=count, action=Action.HOLD, reason=f"hold: {stale}")
    if count < policy.min_hosts and target <= policy.min_hosts:
        why = f"up: {count} is below the minimum of {policy.min_hosts} hosts"
        return replace(wanted, target=target, action=Action.UP, reason=why)
    if count > policy.max_hosts and target >= policy.max_hosts:
        why = f"down: {count} is above the maximum of {policy.max_hosts} hosts"
        return replace(wanted, target=target, action=Action.DOWN, reason=why)
    return replace(wanted, target=target)


# The newest observations, on which every policy relies.

_ORDER = attrgetter(*Moment.__slots__)


def in_order(history: DemandHistory) -> DemandHistory:
    """The history with its moments oldest first, which the functions of this package rely on."""
    return replace(history, moments=tuple(sorted(history.moments, key=_ORDER)))


def since(history: DemandHistory, seconds: float) -> list[Moment]:
    """The moments that are less than `seconds` older than the newest."""
    after = history.moments[-1].at - timedelta(seconds=seconds)
    return [moment for moment in history.moments if moment.at > after]


def observed_s(history: DemandHistory, policy: ScalingSettings) -> float:
    """How much of the window was observed, in seconds."""
    return sum(moment.seconds for moment in since(history, policy.window_s) if moment.seconds > 0)


def tokens_per_job(history: DemandHistory) -> float | None:
    """The tokens of a mean job: in the moments, or in the last days if no job was offered lately. None if unknown."""
    jobs = sum(moment.offered_jobs for moment in history.moments)
    tokens = sum(moment.offered_tokens for moment in history.moments)
    return tokens / jobs if jobs > 0 and tokens > 0 else history.tokens_per_job
