"""The hosts of a simulated pool: ordered, ready, draining, ended; and the slots that are free on them."""

from collections import deque
from dataclasses import dataclass, field


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
        """Have so many hosts ready at second 0."""
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
