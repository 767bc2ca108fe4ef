"""Switches overflow to the paid API on and off for each queue. Each process has its own switch."""

import logging

from api.door.forecast import Forecast
from headrace.config import OverflowSettings
from headrace.errors import Unavailable
from headrace.policies.routing import spill_reason

log = logging.getLogger(__name__)


class SpillSwitch:
    """Applies `routing.spill_reason` to each queue as it stood a moment ago. Safe for many threads."""

    def __init__(self, forecast: Forecast, overflow: OverflowSettings) -> None:
        """Begin with every queue switched off."""
        self._forecast, self._overflow = forecast, overflow
        self._on: set[str] = set()

    def spill_reason(self, queue: str) -> str | None:
        """Why the queue's new jobs should go to the paid API first; None while they need not, or on an outage."""
        try:
            pressure = self._forecast.pressure(queue)
        except Unavailable:
            return None
        was_on = queue in self._on
        reason = spill_reason(pressure, self._overflow, is_on=was_on)
        if was_on != (reason is not None):
            log.info("overflow_relief", extra={"queue": queue, "is_on": not was_on, "jobs": pressure.jobs})
        if reason is None:
            self._on.discard(queue)
        else:
            self._on.add(queue)
        return reason
