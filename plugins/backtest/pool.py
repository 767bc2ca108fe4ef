"""A simulated pool: its terms, its queue, its hosts, its admission and the paid API behind it.

Exact: it has no time steps.
"""

from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from heapq import heappop, heappush

#: A token of an answer is as much work as this many tokens of a prompt: about what engines need and providers charge.
OUTPUT_WEIGHT = 4.0
#: How often the pool is observed and a policy decides, in seconds.
TICK_S = 30.0
#: The burst that the paid API takes at once, in seconds of its rate.
API_BURST_S = 10.0


@dataclass(frozen=True, slots=True)
class World:
    """The terms of a backtest.

    Attributes:
        usd_per_hour: the price of a host, from its order to the end of its draining.
        slots: requests that a host runs at once. Each slot serves its share of `tokens_per_s`, however busy the others.
        tokens_per_s: the work of a saturated host: a prompt's tokens, plus `OUTPUT_WEIGHT` times the answer's.
        provision_s: the time from an order to the ready host.
        overflow_usd: the price of a request at the paid API.
        overflow_per_s: requests that the paid API takes.
        max_wait_s: a request that would wait longer is not accepted; one that did wait so long expires.
        spill_before_s: a waiting request goes to the paid API so long before it would expire, if there is room.
        min_hosts, max_hosts: the bounds of every policy.
        beta: the safety margin of square-root staffing; see `ScalingSettings.staffing_beta`.
    """

    usd_per_hour: float = 4.10
    slots: int = 20
    tokens_per_s: float = 2324.4
    provision_s: float = 300.0
    overflow_usd: float = 0.015
    overflow_per_s: float = 2.4
    max_wait_s: float = 30.0
    spill_before_s: float = 5.0
    min_hosts: int = 2
    max_hosts: int = 20
    beta: float = 0.5

    @property
    def slot_tokens_per_s(self) -> float:
        """The work of one busy slot."""
        return self.tokens_per_s / self.slots


@dataclass(slots=True)
class SimulatedHost:
    """One host's life, in seconds of the trace.

    Attributes:
        ready_at: when it is ready, or will be.
        drain_at: when its draining began; None if it does not drain.
        ended_at: when its bill ends; None while it lives.
    """

    ordered_at: float
    ready_at: float
    drain_at: float | None = None
    ended_at: float | None = None


@dataclass(slots=True)
class SimulatedFleet:
    """A pool's hosts. A host's number is its place in `hosts`.

    Attributes:
        running: requests that run on each host.
        free: the host of each free slot, the one that has been free longest first. Draining hosts have none.
        ready, requested, draining: the numbers of such hosts, oldest first.
        changes: times at which the number to have changed, and by how much.
    """

    slots: int
    provision_s: float
    hosts: list[SimulatedHost] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    free: deque[int] = field(default_factory=deque)
    ready: list[int] = field(default_factory=list)
    requested: list[int] = field(default_factory=list)
    draining: list[int] = field(default_factory=list)
    changes: list[tuple[float, int]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Hosts that serve or will."""
        return len(self.ready) + len(self.requested)

    def start_with(self, hosts: int) -> None:
        """Have this number of hosts ready at second 0."""
        for _ in range(hosts):
            self.set_ready(self._order(0.0, 0.0))

    def scale_to(self, target: int, now: float) -> list[int]:
        """Order hosts, or remove those that cost least to lose.

        Returns: the hosts that were ordered; each is to be `set_ready` at its `ready_at`.
        """
        change = target - self.count
        if change == 0:
            return []
        self.changes.append((now, change))
        for _ in range(-change):
            self._remove_one(now)
        ordered = []
        for _ in range(change):
            if self.draining:
                self._call_back(self.draining.pop())
            else:
                ordered.append(self._order(now, now + self.provision_s))
        return ordered

    def set_ready(self, host: int) -> bool:
        """Open a requested host's slots. Returns: False if it was removed meanwhile."""
        if self.hosts[host].ended_at is not None:
            return False
        self.requested.remove(host)
        self.ready.append(host)
        self.free.extend([host] * self.slots)
        return True

    def end_request(self, host: int, now: float) -> None:
        """Free the slot of a request that has ended. A draining host ends with its last one."""
        self.running[host] -= 1
        if self.hosts[host].drain_at is None:
            self.free.append(host)
        elif not self.running[host]:
            self.draining.remove(host)
            self.hosts[host].ended_at = now

    def _order(self, now: float, ready_at: float) -> int:
        self.hosts.append(SimulatedHost(now, ready_at))
        self.running.append(0)
        self.requested.append(len(self.hosts) - 1)
        return self.requested[-1]

    def _remove_one(self, now: float) -> None:
        """Remove the newest requested host, else drain the ready one with the fewest requests."""
        if self.requested:
            self.hosts[self.requested.pop()].ended_at = now
            return
        host = min(self.ready, key=self.running.__getitem__)
        self.ready.remove(host)
        self.hosts[host].drain_at = now
        self.free = deque(each for each in self.free if each != host)
        if self.running[host]:
            self.draining.append(host)
        else:
            self.hosts[host].ended_at = now

    def _call_back(self, host: int) -> None:
        self.hosts[host].drain_at = None
        self.ready.append(host)
        self.free.extend([host] * (self.slots - self.running[host]))


class SimulatedFate(IntEnum):
    """How a request ended."""

    WAITING = 0
    SERVED = 1
    SPILLED = 2
    REFUSED = 3
    EXPIRED = 4


@dataclass(slots=True)
class PoolTally:
    """Demand since the last observation. A request counts as refused or spilled if it was so at once."""

    jobs: int = 0
    tokens: float = 0.0
    refused: int = 0
    spilled: int = 0


class SimulatedPool:
    """Serves requests in the order of their arrival.

    A request that would wait longer than `max_wait_s` goes to the paid API while that has room, or else is refused, as
    the product does. A waiting one that is about to expire goes there too.

    Attributes:
        fate: of each request.
        wait_s: of each request that was accepted: until it started here, left for the paid API, or expired.
        backlog_tokens: of the waiting requests.
    """

    def __init__(self, world: World, requests: int, tokens_per_work: float) -> None:
        self.fleet = SimulatedFleet(world.slots, world.provision_s)
        self.fate = bytearray(requests)
        self.wait_s = array("d", bytes(8 * requests))
        self.backlog_tokens = 0.0
        self.tally = PoolTally()
        self._world = world
        self._host_tokens_per_s = world.tokens_per_s * tokens_per_work
        #: (time, host) of a request that ends, and (time, ~host) of a host that gets ready.
        self._events: list[tuple[float, int]] = []
        #: (number, arrival, seconds, tokens) of waiting requests.
        self._queue: deque[tuple[int, float, float, float]] = deque()
        self._api_room = world.overflow_per_s * API_BURST_S
        self._api_at = 0.0

    @property
    def depth(self) -> int:
        """Waiting requests."""
        return len(self._queue)

    def scale_to(self, target: int, now: float) -> None:
        """Order or remove hosts."""
        for host in self.fleet.scale_to(target, now):
            heappush(self._events, (self.fleet.hosts[host].ready_at, ~host))
        self._start_waiting(now)

    def serve(
        self, first: int, times: Sequence[float], seconds: Sequence[float], tokens: Sequence[float], until: float
    ) -> None:
        """Let these requests arrive, and everything happen until then.

        Args:
            first: the number of the first of them.
            seconds: how long each runs.
        """
        self.tally.jobs += len(times)
        self.tally.tokens += sum(tokens)
        events, fleet = self._events, self.fleet
        for number, (at, runs, size) in enumerate(zip(times, seconds, tokens, strict=True), first):
            while events and events[0][0] <= at:
                self._happen(*heappop(events))
            if fleet.free:
                self._start(number, at, at, runs)
            else:
                self._admit(number, at, runs, size)
        while events and events[0][0] <= until:
            self._happen(*heappop(events))
        self._drop_late(until)

    def _happen(self, at: float, host: int) -> None:
        if host >= 0:
            self.fleet.end_request(host, at)
        elif not self.fleet.set_ready(~host):
            return
        if self._queue:
            self._start_waiting(at)

    def _start(self, number: int, arrival: float, now: float, seconds: float) -> None:
        host = self.fleet.free.popleft()
        self.fleet.running[host] += 1
        heappush(self._events, (now + seconds, host))
        self.fate[number] = SimulatedFate.SERVED
        self.wait_s[number] = now - arrival

    def _start_waiting(self, now: float) -> None:
        self._drop_late(now)
        while self._queue and self.fleet.free:
            number, arrival, seconds, tokens = self._queue.popleft()
            self.backlog_tokens -= tokens
            self._start(number, arrival, now, seconds)

    def _admit(self, number: int, at: float, seconds: float, tokens: float) -> None:
        """Queue a request for which no slot is free, or spill or refuse it."""
        self._drop_late(at)
        if self.backlog_tokens <= self._host_tokens_per_s * len(self.fleet.ready) * self._world.max_wait_s:
            self._queue.append((number, at, seconds, tokens))
            self.backlog_tokens += tokens
        elif self._api_takes(at):
            self.fate[number] = SimulatedFate.SPILLED
            self.tally.spilled += 1
        else:
            self.fate[number] = SimulatedFate.REFUSED
            self.tally.refused += 1

    def _drop_late(self, now: float) -> None:
        """Spill the waiting requests that are about to expire, if there is room, and drop those that have expired."""
        queue, longest = self._queue, self._world.max_wait_s
        spills_after = longest - self._world.spill_before_s
        while queue and now - queue[0][1] >= spills_after:
            number, arrival, _, tokens = queue[0]
            waited = now - arrival
            if waited > longest:
                self.fate[number], self.wait_s[number] = SimulatedFate.EXPIRED, longest
            elif self._api_takes(now):
                self.fate[number], self.wait_s[number] = SimulatedFate.SPILLED, waited
            else:
                return
            queue.popleft()
            self.backlog_tokens -= tokens

    def _api_takes(self, now: float) -> bool:
        """Take room for one request at the paid API, if it has any (a token bucket)."""
        per_s = self._world.overflow_per_s
        self._api_room = min(self._api_room + (now - self._api_at) * per_s, max(1.0, per_s * API_BURST_S))
        self._api_at = now
        if self._api_room < 1.0:
            return False
        self._api_room -= 1.0
        return True
