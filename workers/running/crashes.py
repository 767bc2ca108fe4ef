"""How often a worker's engine has died lately: a worker whose engine dies again and again takes itself out."""

import threading
import time
from collections import deque
from collections.abc import Callable

#: So many crashes within so many seconds are too many.
MOST_CRASHES, WITHIN_S = 3, 600.0


class Crashes:
    """Counts them. Safe for many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._crashes: deque[float] = deque()
        self._explained: deque[float] = deque()

    def note(self) -> bool:
        """The engine has died. Returns: True when that is one time too many."""
        with self._lock:
            self._crashes.append(self._clock())
            return self._recent(self._crashes) - self._recent(self._explained) >= MOST_CRASHES

    def explain(self) -> None:
        """A crash was a job's fault, which will not run again: the worker is not to blame for it."""
        with self._lock:
            self._explained.append(self._clock())

    def _recent(self, times: deque[float]) -> int:
        while times and self._clock() - times[0] > WITHIN_S:
            times.popleft()
        return len(times)
