"""The policy `fixed`: always the same number of hosts."""

from datetime import datetime

from headrace.config import ScalingSettings
from headrace.domain.scaling import Decision, History, PoolHosts
from headrace.policies.scaling.bounds import clamped, hold, move


def decide(history: History, hosts: PoolHosts, policy: ScalingSettings, now: datetime) -> Decision:
    """Order what is missing, remove what is too much. Needs no observation to order hosts."""
    target = clamped(policy.min_hosts if policy.fixed_hosts is None else policy.fixed_hosts, policy)
    if target == hosts.count:
        return hold(hosts, f"the pool has its {target} hosts")
    return move(hosts, target, f"{target} hosts are fixed, and {hosts.count} are ready or on their way", policy)
