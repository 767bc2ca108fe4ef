"""The tariff in force, as a web process knows it."""

import logging
from collections.abc import Callable

from headrace.cached_value import CachedValue
from headrace.errors import StoreUnavailable
from headrace.policies.pricing import Tariff

log = logging.getLogger(__name__)

#: How old the prices may be, in seconds. The worker prices again before it calls.
TARIFF_TTL_S = 5.0


class CurrentTariff:
    """The tariff in force, cached. Safe for many threads."""

    def __init__(self, read: Callable[[], Tariff], settings_alone: Tariff) -> None:
        """Read nothing yet. Args: settings_alone: what counts until Postgres has answered once."""
        self._cached = CachedValue(read, TARIFF_TTL_S)
        self._last = settings_alone

    def __call__(self) -> Tariff:
        """The tariff; during an outage of Postgres, the last one."""
        try:
            self._last = self._cached.get()
        except StoreUnavailable as error:
            log.warning("prices_not_read", extra={"error": str(error)})
        return self._last
