"""The forecast: how long a job at a given position will likely wait for its start."""

from api.cached import Cached
from api.catalogue import Catalogue
from headrace.admission import Admission
from headrace.config import PoolSettings

#: How old a drain rate may be; it is observed every few seconds.
RATE_TTL_S = 1.0


class Forecast:
    """Expected waits, from what drains and who is alive."""

    def __init__(self, admission: Admission, catalogue: Catalogue, pools: dict[str, PoolSettings]) -> None:
        self._admission = admission
        self._catalogue = catalogue
        self._pools = pools
        self._rates: dict[str, Cached[float | None]] = {}

    def drain_rate(self, queue: str) -> float | None:
        """Jobs per second that leave the queue: as observed, else as its live workers are believed to manage.

        Returns: None when neither is known: nothing was observed and nobody is alive.
        Raises: BrokerUnavailable. StoreUnavailable.
        """
        rate = self._rates.setdefault(queue, Cached(lambda: self._admission.drain_rate(queue), RATE_TTL_S)).get()
        if rate:
            return rate
        pool = queue.rpartition(".")[0]
        believed = self._pools[pool].drain_jobs_per_s if pool in self._pools else 0.0
        return believed * self._catalogue.fleet(pool).workers or None

    def expected_wait_s(self, queue: str, position: int) -> float | None:
        """Seconds until the job at this position starts; None when no rate is known.

        A free slot takes a job at once. The others wait for as many to drain as are ahead of them and not free.
        """
        fleet = self._catalogue.fleet(queue.rpartition(".")[0])
        behind = position - max(0, fleet.slots - fleet.running)
        if behind <= 0:
            return 0.0
        rate = self.drain_rate(queue)
        return round(behind / rate, 2) if rate else None
