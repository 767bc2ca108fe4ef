"""What the contract suite needs from a provider of machines, so that it can see and break what an actuator stands on.

An actuator joins the suite with one class of this shape, and its name in `PROVIDERS` of `test_actuator.py`.
"""

from typing import Protocol

from scheduler.actuators.base import Actuator

#: The pools that every provider of the suite knows.
POOLS = ("chat", "code")
#: Machines that a provider has for each pool, unless `allow` says less.
MOST = 8
#: Seconds that a call may take on a busy machine.
PATIENCE_S = 30.0


class Provider(Protocol):
    """A provider with no machines at first."""

    def actuator(self, timeout_s: float = PATIENCE_S) -> Actuator:
        """A new actuator on this provider, as another process would make it. Its requests may take `timeout_s`."""
        ...

    def live(self, pool: str) -> set[str]:
        """What the provider itself knows: the ids of the machines that run or are on their way."""
        ...

    def allow(self, pool: str, most: int) -> None:
        """Have no more than this many machines of the pool, those that live included."""
        ...

    def fail(self) -> None:
        """Refuse every call from now on."""
        ...

    def hang(self) -> None:
        """Answer no call from now on."""
        ...

    def lie(self) -> None:
        """Report machines that do not exist, in a way that this provider's protocol allows."""
        ...

    def work(self) -> None:
        """Answer truly again."""
        ...

    def stop(self) -> None:
        """End everything that was started. Called once, after the test."""
        ...
