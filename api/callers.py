"""Who calls, and how often it may. Every call with a key passes `Callers.admit`, before anything of it is read.

An app's calls have a rate, as its submits have one in Redis: a token bucket in the memory of each process, since a
round trip would cost a poll more than all else about it. So several processes allow as many times the rate. Accepted
submits use nothing of it: `lua/reserve.lua` counts those. Knows no HTTP but the methods.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from api.auth import Authenticator, check_scope
from headrace.domain.apps import App, Scope
from headrace.domain.limits.rates import MINUTE_S, RateLeft, RatesLeft
from headrace.errors import AppLimited

REASON = "calls_per_minute"
#: A bucket holds what its rate fills in so many seconds: polls come in bursts, and a flood must not last a minute.
HOLDS_S = 10.0
#: Bytes of a body that cost about as much as a call: to parse and check, or to make tokens of. Each counts as one more.
CALL_BYTES = 4096
#: Seconds' worth of calls that an app owes at most, so that one large body does not keep a small app out for longer.
OWES_S = MINUTE_S


def calls_of(size: int) -> int:
    """How many calls a body of so many bytes counts as, beside its own."""
    return size // CALL_BYTES


@dataclass(slots=True)
class _Bucket:
    """Attributes: left: calls; below 0 where the app owes some. at: when that was so, on the clock."""

    left: float
    at: float


class CallRates:
    """The rate of each app's calls in one process. Safe for many threads."""

    def __init__(self, calls_per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with full buckets. Args: calls_per_minute: of an app that has no limit of its own."""
        self._default, self._clock = calls_per_minute, clock
        #: One for each app that has called.
        self._buckets: dict[UUID, _Bucket] = {}
        self._lock = threading.Lock()

    def use(self, app: App) -> None:
        """Use one call. Raises: AppLimited."""
        limit = self._limit(app)
        with self._lock:
            bucket = self._filled(app.id, limit)
            if is_allowed := bucket.left >= 1:
                bucket.left -= 1
            left = bucket.left
        if not is_allowed:
            raise _limited(limit, 1 - left)

    def check(self, app: App) -> None:
        """Check that the app owes no calls, before it submits. Raises: AppLimited."""
        limit = self._limit(app)
        with self._lock:
            left = self._filled(app.id, limit).left
        if left < 0:
            raise _limited(limit, -left)

    def charge(self, app: App, calls: int) -> None:
        """Use calls whose number is known only at their end. The app may owe them."""
        limit = self._limit(app)
        with self._lock:
            bucket = self._filled(app.id, limit)
            bucket.left = max(bucket.left - calls, -limit * OWES_S / MINUTE_S)

    def _limit(self, app: App) -> int:
        return app.limits.calls_per_minute or self._default

    def _filled(self, app_id: UUID, limit: int) -> _Bucket:
        """The app's bucket as of now. Under the lock."""
        now, holds = self._clock(), max(1.0, limit * HOLDS_S / MINUTE_S)
        if (bucket := self._buckets.get(app_id)) is None:
            bucket = self._buckets[app_id] = _Bucket(holds, now)
        bucket.left = min(holds, bucket.left + (now - bucket.at) * limit / MINUTE_S)
        bucket.at = now
        return bucket


def _limited(limit: int, missing: float) -> AppLimited:
    retry_after_s = max(1, math.ceil(missing / limit * MINUTE_S))
    return AppLimited(
        f"This app may make {limit} calls a minute of this server, and has made them. Retry after {retry_after_s} s.",
        reason=REASON,
        retry_after_s=retry_after_s,
        rates_left=RatesLeft(calls=RateLeft(limit, 0, HOLDS_S)),
    )


class Callers:
    """Admits calls: their keys, their rates and their scopes."""

    def __init__(self, authenticator: Authenticator, rates: CallRates) -> None:
        self.authenticator, self.rates = authenticator, rates

    def admit(self, app: App, method: str, *, submits: bool = False) -> None:
        """Admit a call of this app.

        Args: submits: the call may make a job. It uses a call only at its end, unless a job was accepted.
        Raises: AppLimited. PermissionDenied: the scopes do not allow this method.
        """
        # A key that may not submit makes no job.
        (self.rates.check if submits and Scope.SUBMIT in app.scopes else self.rates.use)(app)
        check_scope(app, method)
