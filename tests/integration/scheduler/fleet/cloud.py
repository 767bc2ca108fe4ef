"""A provider of machines in memory, which can fail, hang, do half of what it is asked, and lie."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Event, Lock

from headrace.errors import ActuatorUnavailable
from scheduler.actuators.base import HostMachine, HostOrder


class Cloud:
    """An actuator that keeps its machines in memory.

    Attributes:
        failing: the methods that fail.
        hang: a call waits until this is set.
        called: set when a call begins.
        accepts: orders that it accepts at once; None for all.
        on_order: runs while it orders.
        hidden: machines that exist, and that it does not list.
        phantoms: machines that it lists, and that do not exist.
        is_deaf: it says that it has ordered, and orders nothing.
        keeps: it says that it has released, and releases nothing.
        marked: machines that it was told to drain.
        started: machines that it ever started.
    """

    name = "memory"

    def __init__(self, *, names_hosts: bool = True) -> None:
        self.names_hosts = names_hosts
        self.existing: dict[str, HostMachine] = {}
        self.failing: set[str] = set()
        self.hang, self.called = Event(), Event()
        self.hang.set()
        self.accepts: int | None = None
        self.on_order: Callable[[], object] = lambda: None
        self.hidden: set[str] = set()
        self.phantoms: list[HostMachine] = []
        self.is_deaf = self.keeps = False
        self.marked: set[str] = set()
        self.started = 0
        self.calls: list[str] = []
        self._lock = Lock()

    def machines(self, pool: str) -> list[HostMachine]:
        self._begin("machines")
        return [*(each for each in self.existing.values() if each.provider_id not in self.hidden), *self.phantoms]

    def order(self, pool: str, orders: Sequence[HostOrder], present: Sequence[HostMachine]) -> list[HostMachine]:
        self._begin("order")
        self.on_order()
        if self.is_deaf:
            return [HostMachine(f"deaf-{order.host_id}", order.host_id) for order in orders] if self.names_hosts else []
        with self._lock:
            if self.names_hosts:
                return [self._named(order) for order in orders[: self.accepts]]
            wanted = len([each for each in present if not each.is_ending]) + len(orders[: self.accepts])
            while len([each for each in self.existing.values() if not each.is_ending]) < wanted:
                self._start(None)
            return []

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

    def vanish(self, host_id: str) -> None:
        """A machine dies by itself."""
        self.existing = {key: each for key, each in self.existing.items() if host_id not in (each.host_id, key)}

    def fade(self, host_id: str) -> None:
        """A machine begins to end, and is still listed."""
        for key, each in self.existing.items():
            if host_id in (each.host_id, key):
                self.existing[key] = replace(each, is_ending=True)

    def _named(self, order: HostOrder) -> HostMachine:
        for machine in self.existing.values():
            if machine.host_id == order.host_id and not machine.is_ending:
                return machine
        return self._start(order.host_id)

    def _start(self, host_id: str | None) -> HostMachine:
        self.started += 1
        machine = HostMachine(f"i-{self.started}", host_id)
        self.existing[machine.provider_id] = machine
        return machine

    def _begin(self, call: str) -> None:
        self.calls.append(call)
        self.called.set()
        assert self.hang.wait(20)
        if call in self.failing:
            raise ActuatorUnavailable(f"no {call} today")
