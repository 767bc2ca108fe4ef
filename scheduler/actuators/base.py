"""The interface of an actuator: the one seam between Headrace and what starts and ends worker hosts.

Knows nothing of decisions, leases or Postgres. Every actuator passes `tests/contracts/test_actuator.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class HostOrder:
    """One host to start.

    Attributes:
        host_id: our id of the host. The same id always means the same host, however often it is ordered.
        pool: the pool that its workers serve.
        instance_type: a NAME of `[hosts.NAME]`; None if the pool has none.
    """

    host_id: str
    pool: str
    instance_type: str | None = None


@dataclass(frozen=True, slots=True)
class HostMachine:
    """One machine at a provider, running or on its way.

    Attributes:
        provider_id: the provider's name of it. It never changes, and no other machine of the pool has it meanwhile.
        host_id: our id of it, where the provider keeps that; otherwise None.
        is_ending: it was released, or is going away by itself; it serves no more.
    """

    provider_id: str
    host_id: str | None = None
    is_ending: bool = False


class Actuator(Protocol):
    """Starts and ends the machines of every pool. Each call may block for some time, but never without limit.

    Every method raises ActuatorUnavailable when the provider fails, hangs, refuses or talks nonsense. What the call was
    to do may then be done, done in part, or not done: call `machines` and try again. Two processes may call at once.

    Attributes:
        name: as in `[scaling] actuator`.
        names_hosts: True if the provider keeps our host ids: a machine's `host_id` is then known from the beginning,
            and its workers name their host by it. False if the provider names machines itself: workers then name their
            host by its `provider_id`.
        patience_s: after so long, a request to a provider that does not answer has failed. The claim of a control
            process that calls follows from it.
    """

    name: str
    names_hosts: bool
    patience_s: float

    def machines(self, pool: str) -> list[HostMachine]:
        """List the pool's machines: all that run, are on their way, or still end."""
        ...

    def order(self, pool: str, orders: Sequence[HostOrder], present: Sequence[HostMachine]) -> list[HostMachine]:
        """Start one machine for each order. Returns when the provider has accepted them; they run later.

        Safe to repeat. With `names_hosts`, a host whose id already has a machine gets no second one. Without it, the
        provider is told how many machines to have: the live ones of `present`, and one for each order. So a caller that
        repeats a call with an old `present` orders nothing twice. An order never ends a machine.

        Args:
            pool: the pool of all the orders.
            orders: the hosts that have no machine in `present`.
            present: what `machines` returned to this caller just before.

        Returns:
            The machines of these orders that are known by now. With `names_hosts`, an order without one was not
            accepted. Without it, all orders are accepted unless an error says otherwise, and their machines show in
            `machines` once the provider has named them.
        """
        ...

    def withdraw(self, pool: str, awaited: int, present: Sequence[HostMachine]) -> None:
        """Take back what was ordered and not delivered: beside the live ones of `present`, only `awaited` may come.

        Ends no machine. By default nothing: with `names_hosts` an accepted order is a machine.
        """
        return

    def launch_times(self, pool: str, machines: Sequence[HostMachine]) -> Mapping[str, datetime]:
        """When the provider launched these machines, by `provider_id`; without those of which it does not say so."""
        return {}

    def release(self, pool: str, machines: Sequence[HostMachine]) -> None:
        """End exactly these machines. A machine that ends already, or is unknown, is no error."""
        ...

    def mark_draining(self, pool: str, machines: Sequence[HostMachine]) -> None:
        """Tell the provider which machines will be released next, so that it takes no other one. By default nothing.

        Only a hint, of use where the provider chooses by itself which machine to end.
        """
        return

    def unmark_draining(self, pool: str, machines: Sequence[HostMachine]) -> None:
        """Take `mark_draining` back: these machines are kept."""
        return
