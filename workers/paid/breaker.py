"""A circuit breaker: after a failure that will not pass by itself, nothing is tried for a while, and then one thing.

Source of the pattern: Nygard, "Release It!", 2007. Pure but for its clock.
"""

import threading
import time
from collections.abc import Callable

#: Seconds for which it stays open after the first failure, doubled with each probe that fails.
FIRST_S = 10.0
MOST_S = 600.0


class Breaker:
    """Closed while all is well; open after a failure; half-open when its time is over. Safe for many threads."""

    def __init__(self, probe_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Closed.

        Args:
            probe_s: after so long without a word a probe counts as lost, and another may be made.
        """
        self._probe_s, self._clock = probe_s, clock
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until = 0.0
        #: While a probe is under way: until when its word is waited for.
        self._probe_until: float | None = None

    @property
    def is_closed(self) -> bool:
        """True while anything may be tried."""
        return self._failures == 0

    @property
    def is_open(self) -> bool:
        """True while nothing is admitted: its time is not over, or a probe is under way."""
        with self._lock:
            return not self.is_closed and self._clock() < max(self._open_until, self._probe_until or 0.0)

    @property
    def is_probing(self) -> bool:
        """True while a probe is under way: its word comes soon."""
        with self._lock:
            return self._probe_until is not None and self._clock() < self._probe_until

    def admits(self) -> bool:
        """Whether one more may be tried now. Of those that ask a half-open breaker, one may: the probe."""
        with self._lock:
            now = self._clock()
            if self.is_closed:
                return True
            if now < max(self._open_until, self._probe_until or 0.0):
                return False
            self._probe_until = now + self._probe_s
            return True

    def succeeded(self) -> bool:
        """What was tried went well. Returns: True when that has closed it."""
        with self._lock:
            # What was under way when it opened says nothing of now.
            if self.is_closed or self._probe_until is None:
                return False
            self._failures, self._probe_until = 0, None
            return True

    def failed(self) -> bool:
        """What was tried met the failure. Returns: True when that has opened it."""
        with self._lock:
            was_closed = self.is_closed
            if was_closed or self._probe_until is not None:
                self._failures += 1
                self._open_until = self._clock() + min(MOST_S, FIRST_S * 2 ** min(self._failures - 1, 10))
                self._probe_until = None
            return was_closed

    def is_unsure(self) -> None:
        """What was tried says neither: another probe may be made."""
        with self._lock:
            self._probe_until = None
