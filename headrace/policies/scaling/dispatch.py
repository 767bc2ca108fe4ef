"""Policies by name, and the bounds that hold for all of them."""

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType

from headrace.config import ScalingSettings
from headrace.domain.scaling import Decision, History, PoolHosts
from headrace.policies.scaling import predictive, reactive, schedule
from headrace.policies.scaling.bounds import clamped, hold, move, staleness, within_bounds
from headrace.policies.scaling.recent import in_order

#: The version of the policies' code. A change that decides anything differently raises it.
VERSION = 1

Policy = Callable[[History, PoolHosts, ScalingSettings, datetime], Decision]


def _fixed(history: History, hosts: PoolHosts, policy: ScalingSettings, now: datetime) -> Decision:
    """The policy `fixed`: order what is missing, remove what is too much. Needs no observation to order hosts."""
    target = clamped(policy.min_hosts if policy.fixed_hosts is None else policy.fixed_hosts, policy)
    if target == hosts.count:
        return hold(hosts, f"the pool has its {target} hosts")
    return move(hosts, target, f"{target} hosts are fixed, and {hosts.count} are ready or on their way", policy)


POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        "predictive": predictive.decide,
        "reactive": reactive.decide,
        "schedule": schedule.decide,
        "fixed": _fixed,
    }
)


def decide(history: History, hosts: PoolHosts, policy: ScalingSettings, now: datetime) -> Decision:
    """Decide how many hosts a pool should have.

    The minimum always applies. The maximum, and anything else that removes hosts, needs a fresh observation.

    Args:
        policy: the settings of this pool; see `ScalingSettings.of_pool`.
    """
    history = in_order(history)
    wanted = POLICIES[policy.policy](history, hosts, policy, now)
    return within_bounds(wanted, hosts, policy, staleness(history, policy, now))
