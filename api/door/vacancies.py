"""Pools that no worker serves, for the replies that say so. Knows no HTTP."""

from collections.abc import Callable
from functools import partial

from headrace.broker.forecast import Forecast
from headrace.cached_value import CachedValue
from headrace.config import Settings
from headrace.domain.fleet import Vacancy
from headrace.errors import Unavailable
from headrace.store import Store
from headrace.store.scaling import capacity

#: How old what is known of a pool's next worker may be, in seconds.
VACANCY_TTL_S = 1.0


class Vacancies:
    """The vacancies of a web process. Safe for many threads.

    Whether a worker serves a pool is what the forecast knows anyway, so a served pool costs no query.
    """

    def __init__(self, forecast: Forecast, read: Callable[[str], Vacancy]) -> None:
        """Read nothing yet. Args: read: what Postgres knows of the next worker of a pool."""
        self._forecast, self._read = forecast, read
        self._known: dict[str, CachedValue[Vacancy]] = {}

    def find(self, *pools: str) -> Vacancy | None:
        """The vacancy of the first of these pools; None if a worker serves one of them, or that is unknown."""
        try:
            if any(self._forecast.pool(pool).fleet.slots for pool in pools):
                return None
            return self.next_worker(pools[0])
        except Unavailable:
            return None

    def next_worker(self, pool: str) -> Vacancy:
        """What is known of the next worker of a pool that has none. Raises: StoreUnavailable."""
        if pool not in self._known:
            self._known.setdefault(pool, CachedValue(partial(self._read, pool), VACANCY_TTL_S))
        return self._known[pool].get()


def read_vacancy(store: Store, settings: Settings, pool: str) -> Vacancy:
    """What Postgres knows of the next worker. Raises: StoreUnavailable."""
    with store.begin() as db:
        return capacity.vacancy(db, settings, pool)
