"""Counts recent crashes of a worker's engine. A worker whose engine dies too often stops itself."""

import threading
import time
from collections import deque
from collections.abc import Callable

#: This many unexplained crashes within this many seconds are too many.
MOST_CRASHES, WITHIN_S = 3, 600.0


class Crashes:
    """Counts one engine's crashes. Safe for many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._crashes: deque[float] = deque()
        self._explained: deque[float] = deque()

    def note(self) -> bool:
        """Count a crash. Returns: True when there were too many."""
        with self._lock:
            self._crashes.append(self._clock())
            return self._recent(self._crashes) - self._recent(self._explained) >= MOST_CRASHES

    def explain(self) -> None:
        """Discount a crash: a job caused it, not the worker, and that job will not run again."""
        with self._lock:
            self._explained.append(self._clock())

    def _recent(self, times: deque[float]) -> int:
        while times and self._clock() - times[0] > WITHIN_S:
            times.popleft()
        return len(times)
