"""The attempts that run in this process, and why one must stop.

Shared by the task threads, which run them, and the lease's thread, which receives cancels and deadlines.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

StopReason = Literal["cancelled", "deadline_exceeded", "run_timeout", "lease_lost", "claim_lost", "draining"]


class RunningAttempts:
    """The running request ids, each with its reason to stop, if any. Safe for many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._changed = threading.Condition()
        self._clock = clock
        self._running: dict[str, StopReason | None] = {}
        self._since: dict[str, float] = {}

    @contextmanager
    def running(self, request_id: str) -> Iterator[None]:
        """Hold the attempt as running."""
        with self._changed:
            self._running[request_id] = None
            self._since[request_id] = self._clock()
        try:
            yield
        finally:
            with self._changed:
                del self._running[request_id], self._since[request_id]
                self._changed.notify_all()

    def stop(self, request_id: str, reason: StopReason) -> bool:
        """Note why an attempt must stop. Keeps the first reason. False if it has ended or already has a reason."""
        with self._changed:
            if self._running.get(request_id, reason) is not None:
                return False
            self._running[request_id] = reason
            return True

    def reason(self, request_id: str) -> StopReason | None:
        """Why this running attempt must stop, or None."""
        with self._changed:
            return self._running.get(request_id)

    def ids(self) -> list[str]:
        """The attempts that run now."""
        with self._changed:
            return list(self._running)

    def stopping(self) -> list[str]:
        """The running attempts that must stop."""
        with self._changed:
            return [request_id for request_id, reason in self._running.items() if reason is not None]

    def longer_than(self, seconds: float) -> list[str]:
        """The attempts that have run for longer than `seconds`."""
        with self._changed:
            before = self._clock() - seconds
            return [request_id for request_id, since in self._since.items() if since < before]

    def __len__(self) -> int:
        with self._changed:
            return len(self._running)

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no attempt runs. False if one still runs after `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout_s)
