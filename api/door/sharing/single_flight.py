"""Single flight at the door: a job follows an identical job under way, and takes no place in a queue. Knows no HTTP."""

import logging
from collections.abc import Sequence
from datetime import datetime

from headrace.batching import Batching
from headrace.broker.flights import Flights
from headrace.domain.ids import show_id
from headrace.domain.jobs import JobSpec
from headrace.errors import BrokerUnavailable
from headrace.store import Store
from headrace.store.jobs import followers
from headrace.store.jobs.followers import Follower

log = logging.getLogger(__name__)

#: Jobs in one insert.
BATCH = 64

#: When the job would have had to start; None if it does not follow.
_StartBy = datetime | None


class SingleFlight:
    """Lets jobs follow, and chooses leaders. Safe for many threads, which share inserts."""

    def __init__(self, store: Store, flights: Flights) -> None:
        self._store, self._flights = store, flights
        self._inserts = Batching[Follower, _StartBy](self._insert, BATCH)

    def follow(self, follower: Follower) -> _StartBy:
        """Insert a job that follows another; None if it cannot, and must be inserted as any other.

        Raises: StoreUnavailable.
        """
        return self._inserts.call(follower)

    def leads(self, spec: JobSpec) -> bool:
        """True if the job is to make the answer; False while another is about to. Raises: BrokerUnavailable."""
        return spec.cache_key is not None and self._flights.lead(spec.cache_key, spec.id)

    def release(self, spec: JobSpec) -> None:
        """Let another job lead unless it finds this one."""
        if spec.cache_key is None:
            return
        try:
            self._flights.release(spec.cache_key, spec.id)
        except BrokerUnavailable as error:
            # The choice expires by itself.
            log.warning("flight_not_released", extra={"job_id": show_id(spec.id), "error": str(error)})

    def _insert(self, new: Sequence[Follower]) -> list[_StartBy]:
        inserted = followers.follow(self._store, new)
        return [inserted.get(follower.spec.id) for follower in new]
