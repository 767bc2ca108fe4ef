"""How many hosts a load needs: for the fleet that a run begins with, and for the fleet that is fixed at the peak."""

import math

from headrace.cli.backtest.model.load import OfferedLoad
from headrace.cli.backtest.model.world import World
from headrace.domain.scaling import PoolHosts
from headrace.policies.scaling.staffing import hosts_for

#: A run begins with the hosts that the first minutes need.
FIRST_MINUTES = 5
#: By default a pool may have so many times the hosts of its peak, so that the maximum decides nothing.
HEADROOM = 1.25
MOST_HOSTS = 20


def hosts_at_start(load: OfferedLoad, world: World) -> int:
    """The hosts that the first minutes need, with the margin of `World.beta`."""
    return _within(_needed(float(load.demand[:FIRST_MINUTES].mean()), world), world)


def hosts_at_peak(load: OfferedLoad, world: World) -> int:
    """The hosts that the load's peak needs, with the margin of `World.beta`."""
    return _within(_needed(load.peak, world), world)


def max_hosts(load: OfferedLoad, world: World) -> int:
    """The default of `World.max_hosts`: enough for the peak."""
    return max(MOST_HOSTS, math.ceil(HEADROOM * _needed(load.peak, world)), world.min_hosts)


def _needed(work_per_s: float, world: World) -> int:
    host = PoolHosts(ready=0, tokens_per_s=world.tokens_per_s, slots_per_host=world.slots)
    return math.ceil(hosts_for(work_per_s, host, world.beta))


def _within(hosts: int, world: World) -> int:
    return max(world.min_hosts, min(world.max_hosts, hosts))
