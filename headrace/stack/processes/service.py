"""A process to run, and the rules for its life. Runs nothing itself."""

from collections.abc import Callable
from dataclasses import dataclass

from headrace.stack.processes.child import STOP_TIMEOUT_S, Command


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Service:
    """A process to run, and the supervisor's rules for it.

    Attributes:
        is_ready: called repeatedly after each start. Returns within a few seconds whether the present life is ready.
        once: the process is ready when it has ended with status 0.
        give_up_after: short lives in a row that end the whole stack; None to restart it forever.
        before_start: runs once, before the first start.
        after_stop: runs once, after the last end.
    """

    command: Command
    is_ready: Callable[[], bool] = lambda: True
    ready_timeout_s: float = 60.0
    stop_timeout_s: float = STOP_TIMEOUT_S
    once: bool = False
    give_up_after: int | None = None
    before_start: Callable[[], None] = _nothing
    after_stop: Callable[[], None] = _nothing

    @property
    def name(self) -> str:
        """The command's name."""
        return self.command.name
