"""A provider of machines in memory, and its actuator, which can fail, hang, do half of what it is asked, and lie."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from threading import Event, Lock

from headrace.errors import ActuatorUnavailable
from scheduler.actuators.base import Actuator, HostMachine, HostOrder
from tests.contracts.providers.provider import MOST, PATIENCE_S


class Cloud:
    """An actuator that keeps its machines in memory.

    Attributes:
        existing: its machines, by their names.
        pools: the pools of the machines that are not of `chat`.
        failing: the methods that fail.
        hang: a call waits until this is set, or `patience_s` is over.
        called: set when a call begins.
        most: the most machines of a pool.
        on_order: runs while it orders.
        hidden: machines that exist, and that it does not list.
        phantoms: machines that it lists, and that do not exist.
        is_deaf: it says that it has ordered, and orders nothing.
        keeps: it says that it has released, and releases nothing.
        marked: machines that it was told to drain.
        started: machines that it ever started.
        launched_at: when it launched machines; the others it does not say.
        pending: accepted orders that it has not delivered, by pool. They come when `deliver` is called.
        is_short: it accepts orders, and delivers none for now.
        calls: the methods that were called.
    """

    name = "memory"

    def __init__(self, *, names_hosts: bool = True) -> None:
        self.names_hosts, self.patience_s = names_hosts, PATIENCE_S
        self.existing: dict[str, HostMachine] = {}
        self.pools: dict[str, str] = {}
        self.failing: set[str] = set()
        self.hang, self.called = Event(), Event()
        self.hang.set()
        self.most: dict[str, int] = {}
        self.on_order: Callable[[], object] = lambda: None
        self.hidden: set[str] = set()
        self.phantoms: list[HostMachine] = []
        self.is_deaf = self.keeps = False
        self.marked: set[str] = set()
        self.started = 0
        self.launched_at: dict[str, datetime] = {}
        self.pending: dict[str, int] = {}
        self.is_short = False
        self.calls: list[str] = []
        self._lock = Lock()

    def live(self, pool: str) -> list[HostMachine]:
        """The machines of a pool that do not end."""
        of_pool = (each for key, each in self.existing.items() if self.pools.get(key, "chat") == pool)
        return [each for each in of_pool if not each.is_ending]

    def machines(self, pool: str) -> list[HostMachine]:
        self._begin("machines")
        of_pool = [each for key, each in self.existing.items() if self.pools.get(key, "chat") == pool]
        return [*(each for each in of_pool if each.provider_id not in self.hidden), *self.phantoms]

    def order(self, pool: str, orders: Sequence[HostOrder], present: Sequence[HostMachine]) -> list[HostMachine]:
        self._begin("order")
        self.on_order()
        if self.is_deaf:
            return [HostMachine(f"deaf-{order.host_id}", order.host_id) for order in orders] if self.names_hosts else []
        with self._lock:
            if self.names_hosts:
                made = [self._named(pool, order.host_id) for order in orders]
                return [machine for machine in made if machine is not None]
            wanted = len([each for each in present if not each.is_ending]) + len(orders)
            if self.is_short:
                self.pending[pool] = max(self.pending.get(pool, 0), wanted - len(self.live(pool)))
                return []
            while len(self.live(pool)) < wanted:
                if self._start(pool, None) is None:
                    raise ActuatorUnavailable(f"no more than {len(self.live(pool))} machines")
            return []

    def withdraw(self, pool: str, awaited: int, present: Sequence[HostMachine]) -> None:
        self._begin("withdraw")
        with self._lock:
            wanted = len([each for each in present if not each.is_ending]) + awaited
            self.pending[pool] = min(self.pending.get(pool, 0), max(0, wanted - len(self.live(pool))))

    def deliver(self, pool: str) -> list[str]:
        """Start what was ordered and is still wanted; returns the machines' names."""
        made = [self._start(pool, None) for _ in range(self.pending.pop(pool, 0))]
        return [machine.provider_id for machine in made if machine is not None]

    def launch_times(self, pool: str, machines: Sequence[HostMachine]) -> Mapping[str, datetime]:
        self._begin("launch_times")
        names = {machine.provider_id for machine in machines}
        return {name: at for name, at in self.launched_at.items() if name in names}

    def release(self, pool: str, machines: Sequence[HostMachine]) -> None:
        self._begin("release")
        if not self.keeps:
            for machine in machines:
                self.existing.pop(machine.provider_id, None)

    def mark_draining(self, pool: str, machines: Sequence[HostMachine]) -> None:
        self._begin("mark_draining")
        self.marked |= {machine.provider_id for machine in machines}

    def unmark_draining(self, pool: str, machines: Sequence[HostMachine]) -> None:
        self._begin("unmark_draining")
        self.marked -= {machine.provider_id for machine in machines}

    def fade(self, provider_id: str) -> None:
        """A machine begins to end by itself, and is still listed."""
        self.existing[provider_id] = replace(self.existing[provider_id], is_ending=True)

    def _named(self, pool: str, host_id: str) -> HostMachine | None:
        for machine in self.live(pool):
            if machine.host_id == host_id:
                return machine
        return self._start(pool, host_id)

    def _start(self, pool: str, host_id: str | None) -> HostMachine | None:
        if len(self.live(pool)) >= self.most.get(pool, MOST):
            return None
        self.started += 1
        machine = HostMachine(f"i-{self.started}", host_id)
        self.existing[machine.provider_id], self.pools[machine.provider_id] = machine, pool
        return machine

    def _begin(self, call: str) -> None:
        self.calls.append(call)
        self.called.set()
        if not self.hang.wait(self.patience_s):
            raise ActuatorUnavailable(f"{call} hangs")
        if call in self.failing:
            raise ActuatorUnavailable(f"no {call} today")


class InMemory:
    """The cloud as the contract suite sees a provider."""

    def __init__(self, *, names_hosts: bool) -> None:
        self.cloud = Cloud(names_hosts=names_hosts)

    def actuator(self, timeout_s: float = PATIENCE_S) -> Actuator:
        self.cloud.patience_s = timeout_s
        return self.cloud

    def live(self, pool: str) -> set[str]:
        return {machine.provider_id for machine in self.cloud.live(pool)}

    def allow(self, pool: str, most: int) -> None:
        self.cloud.most[pool] = most

    def fail(self) -> None:
        self.cloud.failing = {"machines", "order", "release", "withdraw", "launch_times"}

    def hang(self) -> None:
        self.cloud.hang.clear()

    def lie(self) -> None:
        """It lists its machines twice."""
        self.cloud.phantoms = list(self.cloud.existing.values())

    def work(self) -> None:
        self.cloud.failing, self.cloud.phantoms = set(), []
        self.cloud.hang.set()

    def stop(self) -> None:
        pass
