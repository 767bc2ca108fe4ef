"""How often a provider is asked, and what it was told of draining machines. Pure."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from scheduler.actuators.base import Actuator, HostMachine

_NEVER = -float("inf")


@dataclass(frozen=True, slots=True)
class Timing:
    """The times of a `HostMover`.

    Attributes:
        look_every_s: how often machines are listed while nothing is to be ordered or ended.
        retry_s: the pause after a call that failed; it doubles up to `longest_retry_s`.
        claim_s: how long the claim of a process that died, or hangs in a call, keeps others away.
    """

    look_every_s: float = 5.0
    retry_s: float = 1.0
    longest_retry_s: float = 60.0
    claim_s: float = 120.0

    @classmethod
    def of(cls, actuator: Actuator) -> Self:
        """The times of movers that use this actuator."""
        # A process that still holds its claim after twice the time in which a request fails is dead, or hangs.
        return cls(claim_s=2 * actuator.patience_s)


class CallPace:
    """When the provider may be asked next."""

    def __init__(self, timing: Timing, clock: Callable[[], float] = time.monotonic) -> None:
        self._timing, self._clock = timing, clock
        self._failures = 0
        self._next_call = self._next_look = _NEVER

    def may_look(self, *, is_urgent: bool) -> bool:
        """Whether the machines may be listed now. Nothing is urgent enough to shorten the pause after a failure."""
        at = self._clock()
        return at >= self._next_call and (is_urgent or at >= self._next_look)

    def looked(self) -> None:
        """Note that the machines were listed."""
        self._next_look = self._clock() + self._timing.look_every_s

    def failed(self) -> None:
        """Note a call that failed, or that did only a part."""
        pause_s = min(self._timing.retry_s * 2**self._failures, self._timing.longest_retry_s)
        self._next_call = self._clock() + pause_s
        self._failures = min(self._failures + 1, 16)

    def went_well(self) -> None:
        """Note a sweep without a failed call."""
        self._failures = 0

    def is_failing(self) -> bool:
        """Whether the pause after a failure lasts."""
        return self._clock() < self._next_call


class DrainHints:
    """Which machines the provider knows to drain. A new process tells it all again."""

    def __init__(self) -> None:
        self._told: dict[str, bool] = {}

    def news(
        self, draining: Sequence[HostMachine], serving: Sequence[HostMachine]
    ) -> tuple[list[HostMachine], list[HostMachine]]:
        """The machines to mark, and those to unmark: the ones of which the provider does not know it."""
        told = self._told
        return (
            [machine for machine in draining if told.get(machine.provider_id) is not True],
            [machine for machine in serving if told.get(machine.provider_id) is not False],
        )

    def note(self, draining: Sequence[HostMachine], serving: Sequence[HostMachine]) -> None:
        """Note what the provider was told; machines that are gone are forgotten."""
        self._told = {each.provider_id: True for each in draining} | {each.provider_id: False for each in serving}
