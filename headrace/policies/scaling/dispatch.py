"""Policies by name, and the bounds that hold for all of them."""

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType

from headrace.config import ScalingSettings
from headrace.domain.scaling import Decision, History, PoolHosts
from headrace.policies.scaling import fixed, predictive, reactive, schedule
from headrace.policies.scaling.bounds import staleness, within_bounds
from headrace.policies.scaling.recent import in_order

#: The version of the policies' code. A change that decides anything differently raises it.
VERSION = 1

Policy = Callable[[History, PoolHosts, ScalingSettings, datetime], Decision]

POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        "predictive": predictive.decide,
        "reactive": reactive.decide,
        "schedule": schedule.decide,
        "fixed": fixed.decide,
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
