"""Large request bodies: what is asked before one is read, and how many bytes of them a process holds at once.

Knows no HTTP.
"""

import logging
import math
import threading
from collections import Counter
from uuid import UUID

from api.fair_semaphore import FairSemaphore
from headrace.broker.app_rates import AppRates
from headrace.domain.apps import App
from headrace.domain.rates import RateLeft, RatesLeft
from headrace.errors import AppLimited, BodiesFull, BrokerUnavailable
from headrace.store import Store
from headrace.store.jobs.idempotency import find_replay

log = logging.getLogger(__name__)

#: A smaller body is read at once: to read it costs no more than to ask.
SMALL_BYTES = 64 * 1024
#: The share of the bytes that one app may hold.
APP_SHARE = 0.5
RETRY_AFTER_S = 1


class Bodies:
    """The large bodies of one process, from before they are read until their requests end. Safe for many threads.

    Attributes:
        parsing: held while one is parsed, which keeps the GIL: so one stands between others and the GIL, and not all.
    """

    def __init__(self, rates: AppRates, store: Store, in_flight_bytes: int) -> None:
        self._rates, self._store, self._most = rates, store, in_flight_bytes
        self._held: Counter[UUID] = Counter()
        self._lock = threading.Lock()
        self.parsing = FairSemaphore(1)

    def admit(self, app: App, size: int, idempotency_key: str | None) -> None:
        """Let a body of so many bytes be read. `release` must follow. Raises: AppLimited. BodiesFull. StoreUnavailable.

        The rate is only looked at: `reserve` uses it up.
        """
        self._check_rate(app, idempotency_key)
        with self._lock:
            own, all_held = self._held[app.id], self._held.total()
            # A body that is larger than the bound has it for itself.
            if own and own + size > self._most * APP_SHARE:
                raise _full("This app sends", "app_bodies", own)
            if all_held and all_held + size > self._most:
                raise _full("Apps send this server", "bodies", all_held)
            self._held[app.id] += size

    def release(self, app_id: UUID, size: int) -> None:
        """The request has ended."""
        with self._lock:
            self._held[app_id] -= size
            if not self._held[app_id]:
                del self._held[app_id]

    def _check_rate(self, app: App, idempotency_key: str | None) -> None:
        if (limit := app.limits.requests_per_minute) is None:
            return
        try:
            free_in_ms = self._rates.free_in_ms(app.id, limit)
        except BrokerUnavailable as error:
            # A replay needs no Redis; all else hears of it from `reserve`.
            log.warning("rate_not_looked_at", extra={"error": str(error)})
            return
        if free_in_ms and not self._is_replay(app, idempotency_key):
            retry_after_s = max(1, math.ceil(free_in_ms / 1000))
            raise AppLimited(
                f"This app may make {limit} requests a minute, and has made them. Retry after {retry_after_s} s.",
                reason="requests_per_minute",
                retry_after_s=retry_after_s,
                rates_left=RatesLeft(RateLeft(limit, 0)),
            )

    def _is_replay(self, app: App, idempotency_key: str | None) -> bool:
        if idempotency_key is None:
            return False
        with self._store.begin() as db:
            return find_replay(db, app.id, idempotency_key) is not None


def _full(who: str, reason: str, held_bytes: int) -> BodiesFull:
    return BodiesFull(
        f"{who} {held_bytes / 2**20:.0f} MiB of request bodies at once, and may not send more. Retry after "
        f"{RETRY_AFTER_S} s, with fewer large requests at once.",
        reason=reason,
        retry_after_s=RETRY_AFTER_S,
    )
