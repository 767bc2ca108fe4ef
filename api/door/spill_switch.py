"""Switches overflow to the paid API on and off for each queue. Each process has its own switch."""

import logging

from headrace.broker.forecast import Forecast
from headrace.config import OverflowSettings
from headrace.errors import Unavailable
from headrace.policies.routing import spill_reason

log = logging.getLogger(__name__)


class SpillSwitch:
    """Applies `routing.spill_reason` to each queue as it stood a moment ago. Safe for many threads.

    A queue has two switches: one for jobs that cost less at the paid API than on another host, one for all others.
    """

    def __init__(self, forecast: Forecast, overflow: OverflowSettings) -> None:
        """Begin with every queue switched off."""
        self._forecast, self._overflow = forecast, overflow
        self._on: set[tuple[str, bool]] = set()

    def spill_reason(self, queue: str, *, is_cheaper: bool) -> str | None:
        """Why the queue's new jobs should go to the paid API first; None while they need not, or on an outage.

        Args: is_cheaper: of jobs that cost less there than on another host.
        """
        try:
            pressure = self._forecast.pressure(queue)
        except Unavailable:
            return None
        switch = queue, is_cheaper
        was_on = switch in self._on
        reason = spill_reason(pressure, self._overflow, is_on=was_on, is_cheaper=is_cheaper)
        if was_on != (reason is not None):
            about = {"queue": queue, "is_cheaper": is_cheaper, "is_on": not was_on, "jobs": pressure.jobs}
            log.info("overflow_relief", extra=about)
        if reason is None:
            self._on.discard(switch)
        else:
            self._on.add(switch)
        return reason
