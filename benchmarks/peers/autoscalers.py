"""Knative's and Kubernetes' autoscalers, as pilots of a backtest.

Each is a model of the algorithm with its default values, not its code. Both decide as often as the product, and see the
same observations.
"""

import math
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from statistics import fmean

from headrace.domain.scaling import Moment, PoolHosts
from plugins.backtest.pool import TICK_S, World

#: The share of its slots that a host is meant to use: Knative's `container-concurrency-target-percentage`.
TARGET_USE = 0.7


class KpaPilot:
    """Knative's pod autoscaler: in-flight requests per host, stable and panic windows; it scales down at once.

    Stable window 60 s. It panics for as long when the newest value asks for twice the ready hosts, and then never
    scales down. `max-scale-down-rate` is 2.
    """

    _WINDOW_S, _PANIC, _DOWN_RATE = 60.0, 2.0, 2

    def __init__(self, world: World) -> None:
        self._world = world
        self._panic_until: datetime | None = None
        self._most = 0

    def target(self, moments: Sequence[Moment], hosts: PoolHosts, now: datetime) -> int:
        """See `plugins.backtest.pilots.Pilot`."""
        per_host = TARGET_USE * self._world.slots
        recent = [_in_flight(each) for each in moments[-round(self._WINDOW_S / TICK_S) :]]
        ready = max(1, hosts.ready)
        stable = max(math.ceil(fmean(recent) / per_host), ready // self._DOWN_RATE)
        newest = max(math.ceil(recent[-1] / per_host), ready // self._DOWN_RATE)
        if newest / ready >= self._PANIC:
            self._panic_until = now
        if self._panic_until is None or (now - self._panic_until).total_seconds() >= self._WINDOW_S:
            self._most = 0
            return _clamped(stable, self._world)
        self._most = max(self._most, stable, newest)
        return _clamped(self._most, self._world)


class HpaPilot:
    """Kubernetes' horizontal autoscaler on in-flight requests per ready host.

    Tolerance 10 %; at most 4 hosts or twice as many at once; scale-down to the highest recommendation of 300 s.
    """

    _TOLERANCE, _STEP, _FACTOR, _STABLE_S = 0.1, 4, 2, 300.0

    def __init__(self, world: World) -> None:
        self._world = world
        self._wanted: deque[tuple[datetime, int]] = deque()

    def target(self, moments: Sequence[Moment], hosts: PoolHosts, now: datetime) -> int:
        """See `plugins.backtest.pilots.Pilot`."""
        ready = max(1, hosts.ready)
        ratio = _in_flight(moments[-1]) / ready / (TARGET_USE * self._world.slots)
        wanted = hosts.count if abs(ratio - 1) <= self._TOLERANCE else math.ceil(ready * ratio)
        wanted = min(wanted, max(hosts.count + self._STEP, hosts.count * self._FACTOR))
        self._wanted.append((now, wanted))
        while (now - self._wanted[0][0]).total_seconds() > self._STABLE_S:
            self._wanted.popleft()
        stable = min(hosts.count, max(wanted for _, wanted in self._wanted))
        return _clamped(max(wanted, stable), self._world)


def _in_flight(moment: Moment) -> int:
    return moment.running + moment.depth


def _clamped(hosts: int, world: World) -> int:
    return max(world.min_hosts, min(world.max_hosts, hosts))
