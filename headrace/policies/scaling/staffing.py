"""How many hosts a load needs: square-root staffing.

Halfin and Whitt, "Heavy-traffic limits for queues with many exponential servers" (Operations Research 29, 1981): of
R busy servers on average, R + beta x sqrt(R) servers keep the share of arrivals that wait constant at any scale. Here a
server is a slot: one of the jobs that a host runs at once.
"""

import math

from headrace.domain.scaling import PoolHosts


def hosts_for(tokens_per_s: float, hosts: PoolHosts, beta: float, upper_tokens_per_s: float | None = None) -> float:
    """The hosts that a load needs, not rounded. `hosts.tokens_per_s` must be known.

    Two margins cover what is uncertain: the chance in the arrivals, and the error of the forecast. They are
    independent, so their squares add up, as variances do. Without known slots the first margin is left out.

    Args:
        tokens_per_s: the expected load.
        upper_tokens_per_s: the load up to which hosts are to suffice; by default the expected one.
    """
    assert hosts.tokens_per_s is not None
    needed = max(tokens_per_s, 0.0) / hosts.tokens_per_s
    error = 0.0 if upper_tokens_per_s is None else max(upper_tokens_per_s, 0.0) / hosts.tokens_per_s - needed
    chance = beta * math.sqrt(needed / hosts.slots_per_host) if hosts.slots_per_host else 0.0
    return needed + (math.hypot(error, chance) if error > 0 else error + chance)
