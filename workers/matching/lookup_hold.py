"""Holds a new job back from an engine while the semantic cache has still to look it up."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from uuid import UUID

from headrace.broker.lookups import Lookups
from headrace.domain.ids import time_of
from headrace.errors import BrokerUnavailable
from headrace.policies.caching.semantic import HELD_S

#: The pause between two looks, in seconds.
LOOK_AGAIN_S = 0.02


class LookupHold:
    """Holds jobs in the thread that would start them. Safe for many threads."""

    def __init__(
        self,
        lookups: Sequence[Lookups] = (),
        held_s: float = HELD_S,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: lookups: of every pool whose workers look jobs up; without any, no job is held."""
        self._lookups, self._held_s, self._now = lookups, held_s, now
        self._sleep, self._clock = sleep, clock

    def may_hold(self, job_id: UUID) -> bool:
        """True if `wait` may have to wait for this job's look-up. Asks no server."""
        return self._left(job_id) > 0

    def wait(self, job_id: UUID) -> None:
        """Return when the job has been looked up, or is `held_s` old by its id, or was held for as long.

        Bound: `held_s` and one reply of Redis, whatever the clocks say. A job that waited in its queue for longer costs
        nothing.
        """
        until = self._clock() + self._left(job_id)
        while (left := until - self._clock()) > 0 and self._is_pending(job_id):
            self._sleep(min(left, LOOK_AGAIN_S))

    def _left(self, job_id: UUID) -> float:
        if not self._lookups or not self._held_s:
            return 0.0
        return min(self._held_s, self._held_s - (self._now() - time_of(job_id)).total_seconds())

    def _is_pending(self, job_id: UUID) -> bool:
        try:
            return any(each.is_pending(job_id) for each in self._lookups)
        except BrokerUnavailable:
            return False
