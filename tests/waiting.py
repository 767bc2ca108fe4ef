"""The one loop with which tests wait for a condition, and a clock that they set."""

import threading
import time
from collections.abc import Callable

POLL_S = 0.02
#: Far longer than any condition takes, also on a busy machine.
DEADLINE_S = 60.0


def until(condition: Callable[[], object], what: str = "the condition holds", deadline_s: float = DEADLINE_S) -> None:
    """Return once the condition holds. Fail if it does not within the time."""
    deadline, tick = time.monotonic() + deadline_s, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {deadline_s} s: {what}"
        tick.wait(POLL_S)


class Clock:
    """Stands in for `time` in a module, where it is patched: other threads keep the real one.

    Attributes: sleeps: the pauses, which end at once. monotonic: the real clock's, until a test sets another.
    """

    def __init__(self) -> None:
        self.sleeps: list[float] = []
        self.sleep = self.sleeps.append
        self.monotonic: Callable[[], float] = time.monotonic
