"""A circuit breaker: after a lasting failure it admits no calls for a while, and then one probe.

Source of the pattern: Nygard, "Release It!", 2007. Pure but for its clock.
"""

import threading
import time
from collections.abc import Callable

#: Seconds for which it stays open after the first failure, doubled with each failed probe, up to `MOST_S`.
FIRST_S = 10.0
MOST_S = 600.0


class Breaker:
    """Closed while all is well; open after a failure; half-open when its time is over. Safe for many threads."""

    def __init__(self, probe_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start closed.

        Args:
            probe_s: seconds after which a probe without an outcome counts as lost, and another is admitted.
        """
        self._probe_s, self._clock = probe_s, clock
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until = 0.0
        #: When a running probe counts as lost; None without a probe.
        self._probe_until: float | None = None

    @property
    def is_closed(self) -> bool:
        """True while every call is admitted."""
        return self._failures == 0

    @property
    def is_open(self) -> bool:
        """True while no call is admitted: its time is not over, or a probe is running."""
        with self._lock:
            return not self.is_closed and self._clock() < max(self._open_until, self._probe_until or 0.0)

    @property
    def is_probing(self) -> bool:
        """True while a probe is running, so its outcome comes soon."""
        with self._lock:
            return self._probe_until is not None and self._clock() < self._probe_until

    def admits(self) -> bool:
        """True if another call may be made now. A half-open breaker admits only one call, the probe."""
        with self._lock:
            now = self._clock()
            if self.is_closed:
                return True
            if now < max(self._open_until, self._probe_until or 0.0):
                return False
            self._probe_until = now + self._probe_s
            return True

    def succeeded(self) -> bool:
        """Note a success. Returns: True when it closed the breaker."""
        with self._lock:
            # A call that began before the breaker opened does not show that the failure has passed.
            if self.is_closed or self._probe_until is None:
                return False
            self._failures, self._probe_until = 0, None
            return True

    def failed(self) -> bool:
        """Note a failure. Returns: True when it opened the breaker."""
        with self._lock:
            was_closed = self.is_closed
            if was_closed or self._probe_until is not None:
                self._failures += 1
                self._open_until = self._clock() + min(MOST_S, FIRST_S * 2 ** min(self._failures - 1, 10))
                self._probe_until = None
            return was_closed

    def is_unsure(self) -> None:
        """Note a call that shows neither success nor failure: another probe may be made."""
        with self._lock:
            self._probe_until = None
