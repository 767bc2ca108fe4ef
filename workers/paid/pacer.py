"""Paces an overflow worker's calls to the rates that the provider allows all workers together.

A call that comes too early waits in its slot for a moment. Meanwhile the worker takes no more jobs, so they wait in
their queues, in the order of their lanes. A job that would have to wait for long is handed back.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from headrace.broker.pace import Pace
from headrace.domain.limits.rates import ProviderRates
from headrace.errors import BrokerUnavailable

log = logging.getLogger(__name__)

#: Seconds that a call may wait in its slot.
HELD_S = 5.0
#: The most seconds for which a job is put off and the worker takes no more. After that it asks again, because other
#: workers may have used less than expected.
LONGEST_PAUSE_S = 60.0


class Pacer:
    """One worker's pace. Safe for many threads."""

    def __init__(
        self,
        pace: Pace,
        reopened: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        longest_closed_s: float = LONGEST_PAUSE_S,
    ) -> None:
        """Start without a waiting call.

        Args:
            reopened: called when no call waits any more.
            longest_closed_s: the most seconds for which the worker takes no jobs after one was handed back. Jobs of
                other models wait as long, although those have their own rates.
        """
        self._longest_closed_s = longest_closed_s
        self._pace, self._reopened, self._clock, self._sleep = pace, reopened, clock, sleep
        self._lock = threading.Lock()
        self._waiting = 0
        self._closed_until = 0.0

    @property
    def is_open(self) -> bool:
        """False while another call would have to wait."""
        with self._lock:
            return self._waiting == 0 and self._clock() >= self._closed_until

    def wait(self, model: str, call: str, tokens: int) -> float:
        """Wait until the call may be made; see `Pace.ask`.

        Returns: 0 when it may be made. If it would wait too long in its slot: the seconds after which to ask again.
        """
        wait_s = self._ask(model, call, tokens)
        if wait_s == 0:
            return 0.0
        until = self._clock() + HELD_S
        with self._waits():
            while 0 < wait_s <= until - self._clock():
                self._sleep(wait_s)
                wait_s = self._ask(model, call, tokens)
        pause_s = min(wait_s, LONGEST_PAUSE_S)
        if pause_s > 0:
            with self._lock:
                self._closed_until = max(self._closed_until, self._clock() + min(pause_s, self._longest_closed_s))
        return pause_s

    @contextmanager
    def _waits(self) -> Iterator[None]:
        with self._lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                was_last = self._waiting == 0
            if was_last:
                self._reopened()

    def hear(self, model: str, rates: ProviderRates | None, hold_s: float | None) -> None:
        """Note the rates that an answer reported, if any; see `Pace.hear`."""
        if rates is None:
            return
        try:
            self._pace.hear(model, rates, hold_s or 0.0)
        except BrokerUnavailable as error:
            log.warning("pace_not_heard", extra={"model": model, "error": str(error)})

    def _ask(self, model: str, call: str, tokens: int) -> float:
        try:
            return self._pace.ask(model, call, tokens)
        except BrokerUnavailable as error:
            # The provider itself still refuses calls above its rates.
            log.warning("pace_not_asked", extra={"model": model, "error": str(error)})
            return 0.0
