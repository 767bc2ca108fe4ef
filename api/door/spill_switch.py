"""Which queues are relieved by the paid API now. Each process remembers by itself what it last thought of each."""

import logging

from api.door.forecast import Forecast
from headrace.config import OverflowSettings
from headrace.errors import Unavailable
from headrace.policies.routing import spill_reason

log = logging.getLogger(__name__)


class SpillSwitch:
    """Asks `routing.spill_reason` of each queue, as it stood a moment ago. Safe for many threads."""

    def __init__(self, forecast: Forecast, overflow: OverflowSettings) -> None:
        """Relieve none yet."""
        self._forecast, self._overflow = forecast, overflow
        self._on: set[str] = set()

    def spill_reason(self, queue: str) -> str | None:
        """Why the queue's new jobs should go to the paid API first; None while they need not, or nobody can tell."""
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
