"""How many hosts a load needs: square-root staffing.

Halfin and Whitt, "Heavy-traffic limits for queues with many exponential servers" (Operations Research 29, 1981): of
R busy servers on average, R + beta x sqrt(R) servers keep the share of arrivals that wait constant at any scale. Here a
server is a slot: one of the jobs that a host runs at once.
"""

import math

from headrace.domain.scaling import PoolHosts


def hosts_for(tokens_per_s: float, hosts: PoolHosts, beta: float) -> float:
    """The hosts that a load needs, not rounded. `hosts.tokens_per_s` must be known.

    Without known slots the margin is left out.
    """
    assert hosts.tokens_per_s is not None
    needed = max(tokens_per_s, 0.0) / hosts.tokens_per_s
    if not hosts.slots_per_host:
        return needed
    return needed + beta * math.sqrt(needed / hosts.slots_per_host)
