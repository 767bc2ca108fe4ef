"""Admission control of request bodies: the checks before one is read, and what a process reads and holds at once.

Knows no HTTP.
"""

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from api.door.refusals import bodies_full, requests_limited
from api.slots import FairSemaphore
from headrace.broker.rates import AppRates
from headrace.domain.apps import App
from headrace.errors import BrokerUnavailable
from headrace.store import Store
from headrace.store.jobs.insertion import find_replay

log = logging.getLogger(__name__)

#: A body up to this size is read without a look at the app's rate, and its bytes are not counted: reading it costs no
#: more than that would.
SMALL_BYTES = 64 * 1024
#: Small bodies that one app may be sending at once.
SMALL_LIMIT = 256
#: The share of the bytes that one app may hold.
APP_SHARE = 0.5
#: Bytes per second that a client must send. An app is a server: even a slow uplink of 1 Mbit/s has twice as much. At
#: this rate the largest body by default, 8 MiB, takes 128 s.
MIN_RATE = 64 * 1024


class Bodies:
    """The bodies of one process: large ones from before they are read until their requests end, small ones while they
    are read. Safe for many threads.

    Attributes:
        grace_s: how far a client may fall behind `MIN_RATE` while it sends a body.
        checking: held while a body of some KB or more is parsed and checked. That keeps the GIL, so at most one body
            at a time competes for it.
    """

    def __init__(self, rates: AppRates, store: Store, in_flight_bytes: int, grace_s: float) -> None:
        self._rates, self._store, self._most, self.grace_s = rates, store, in_flight_bytes, grace_s
        self._held: Counter[UUID] = Counter()
        self._small: Counter[UUID] = Counter()
        self._lock = threading.Lock()
        self.checking = FairSemaphore(1)

    @contextmanager
    def reading_small(self, app_id: UUID) -> Iterator[None]:
        """Count a small body while it is read. Raises: BodiesFull."""
        with self._lock:
            if self._small[app_id] >= SMALL_LIMIT:
                raise bodies_full(
                    f"This app sends {SMALL_LIMIT} requests at once whose bodies have not come", "app_bodies"
                )
            self._small[app_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._small[app_id] -= 1
                if not self._small[app_id]:
                    del self._small[app_id]

    def admit(self, app: App, size: int, idempotency_key: str | None) -> None:
        """Admit a large body of `size` bytes. `release` must follow. Raises: AppLimited. BodiesFull. StoreUnavailable.

        It only looks at the app's rate: `reserve` consumes it.
        """
        self._check_rate(app, idempotency_key)
        with self._lock:
            own, all_held = self._held[app.id], self._held.total()
            # A body larger than a bound is admitted when it is the only one.
            if own and own + size > self._most * APP_SHARE:
                raise bodies_full(f"This app sends {_mib(own)} of request bodies at once", "app_bodies")
            if all_held and all_held + size > self._most:
                raise bodies_full(f"Apps send this server {_mib(all_held)} of request bodies at once", "bodies")
            self._held[app.id] += size

    def release(self, app_id: UUID, size: int) -> None:
        """Stop counting a body whose request has ended."""
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
            # A replay needs no Redis. For any other request, `reserve` reports that Redis is down.
            log.warning("rate_not_looked_at", extra={"error": str(error)})
            return
        if free_in_ms and not self._is_replay(app, idempotency_key):
            raise requests_limited(limit, free_in_ms)

    def _is_replay(self, app: App, idempotency_key: str | None) -> bool:
        if idempotency_key is None:
            return False
        with self._store.begin() as db:
            return find_replay(db, app.id, idempotency_key) is not None


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
