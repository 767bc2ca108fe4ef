"""Who calls, and how often it may: API keys, their scopes, and each app's rate of calls.

Every call with a key passes `Callers.admit` before anything of it is read. The outcome of a look-up is cached for
seconds, so that a request costs no extra query. A made-up key fails its checksum, without Postgres. Keys without a
checksum are looked up like all others: one query at a time, on one connection, for all callers that wait.

An app's calls have a rate, as its submits have one in Redis: a token bucket in the memory of each process, because a
round trip would cost a poll more than all else about it. So several processes allow as many times the rate. Accepted
submits use nothing of it: `lua/reserve.lua` counts those.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from api.door.refusals import calls_limited
from api.turns import Turn
from headrace.batching import Batching, Gathering
from headrace.domain.apps import App, Scope
from headrace.domain.limits import MINUTE_S
from headrace.errors import PermissionDenied, Unauthenticated
from headrace.store import Store, keys

T = TypeVar("T")

#: Seconds for which a good key is cached. A revoked key works, and an old limit holds, at most this much longer.
KEY_TTL_S = 3.0
#: Seconds for which a bad key is cached, so that a client that keeps sending one does not reach Postgres.
BAD_KEY_TTL_S = 1.0
#: Cached keys at most. Random keys evict bad keys only.
KEYS_LIMIT = 10_000
BAD_KEYS_LIMIT = 1_000
#: Keys in one query, and the seconds for which a query under load waits for more keys. So unknown keys cost Postgres at
#: most 100 round trips a second for each process, at any rate of requests.
BATCH = 256
GATHER_S = 0.01
#: Headrace's keys have 52 characters. A far longer text is refused before it costs a digest.
KEY_CHARS_LIMIT = 200
#: Methods that change nothing.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class _Recent(dict[bytes, T]):
    """The newest values, by a key's digest. A new one evicts the oldest."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def put(self, digest: bytes, value: T) -> None:
        """Store a value as the newest."""
        self.pop(digest, None)
        while len(self) >= self._limit:
            del self[next(iter(self))]
        self[digest] = value


class Authenticator:
    """Checks Authorization headers. Keeps digests, never keys. Safe to share between threads."""

    def __init__(self, store: Store, *peppers: str) -> None:
        """Args: peppers: the peppers of the stored digests, newest first; two during a rotation."""
        self._store = store
        self._peppers = peppers
        #: Written under the lock, and read without it.
        self._good: _Recent[tuple[App, float]] = _Recent(KEYS_LIMIT)
        self._bad: _Recent[float] = _Recent(BAD_KEYS_LIMIT)
        self._lock = threading.Lock()
        self._batching = Batching[bytes, App | None](self._serve, BATCH, Gathering(GATHER_S))

    def authenticate(self, header: str | None) -> App:
        """The app behind an Authorization header. Raises: Unauthenticated. StoreUnavailable."""
        key = _bearer(header)
        for pepper in self._peppers:
            with suppress(Unauthenticated):
                digest = keys.digest(key, pepper)
                return self._known(key, pepper, digest) or self._ask(digest)
        raise keys.invalid()

    def recall(self, header: str | None) -> App | None:
        """The app behind an Authorization header; None where Postgres must be asked. Raises: Unauthenticated."""
        key = _bearer(header)
        for pepper in self._peppers:
            with suppress(Unauthenticated):
                return self._known(key, pepper, keys.digest(key, pepper))
        raise keys.invalid()

    def last_known(self, header: str | None) -> UUID | None:
        """The app that a good key was of when Postgres was last asked, however long ago; None for any other header."""
        with suppress(Unauthenticated):
            key = _bearer(header)
            for pepper in self._peppers:
                if good := self._good.get(keys.digest(key, pepper)):
                    return good[0].id
        return None

    def _known(self, key: str, pepper: str, digest: bytes) -> App | None:
        """The app of a key that may be asked for; None if it must be. Raises: Unauthenticated."""
        app = self._believed(digest)
        if app is None and not keys.may_exist(key, pepper):
            raise keys.invalid()
        return app

    def _believed(self, digest: bytes) -> App | None:
        """The app from the cache; None when it must be queried. Raises: Unauthenticated."""
        now = time.monotonic()
        if good := self._good.get(digest):
            app, asked_at = good
            if now - asked_at < KEY_TTL_S:
                return app
        elif (bad_at := self._bad.get(digest)) is not None and now - bad_at < BAD_KEY_TTL_S:
            raise keys.invalid()
        return None

    def _ask(self, digest: bytes) -> App:
        """The app from Postgres. Raises: Unauthenticated. StoreUnavailable."""
        # Before the query: its result may be as old as its start.
        asked_at = time.monotonic()
        app = self._batching.call(digest)
        with self._lock:
            if app is None:
                self._good.pop(digest, None)
                self._bad.put(digest, asked_at)
            else:
                self._good.put(digest, (app, asked_at))
        if app is None:
            raise keys.invalid()
        return app

    def _serve(self, digests: Sequence[bytes]) -> list[App | None]:
        with self._store.autocommit() as db:
            found = keys.authenticate_all(db, digests)
        return [found.get(digest) for digest in digests]


def check_scope(app: App, method: str) -> None:
    """Check that the key's scopes allow the method. Raises: PermissionDenied."""
    needed = Scope.READ if method in SAFE_METHODS else Scope.SUBMIT
    if needed not in app.scopes:
        listed = ", ".join(sorted(app.scopes)) or "none"
        message = f"This call needs an API key with the scope '{needed}'; this one's: {listed}."
        raise PermissionDenied(message, code="scope_not_allowed")


def _bearer(header: str | None) -> str:
    scheme, _, key = (header or "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise Unauthenticated("No API key was given. Send it as 'Authorization: Bearer hr-…'.")
    if len(key) > KEY_CHARS_LIMIT or not key.isascii():
        raise Unauthenticated("This API key is not valid: Headrace did not make it.")
    return key


#: Seconds in which a bucket fills: polls come in bursts, and a flood must not last a minute.
HOLDS_S = 10.0
#: Bytes of a body that cost about as much as a call: to parse and check, or to make tokens of. Each counts as one more.
CALL_BYTES = 4096
#: Seconds' worth of calls that an app owes at most, so that one large body does not keep a small app out for longer.
OWES_S = MINUTE_S


def calls_of(size: int) -> int:
    """How many calls a body counts as, beside its own. Args: size: in bytes."""
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
            raise calls_limited(limit, 1 - left, HOLDS_S)

    def check(self, app: App) -> None:
        """Check that the app owes no calls, before it submits. Raises: AppLimited."""
        limit = self._limit(app)
        with self._lock:
            left = self._filled(app.id, limit).left
        if left < 0:
            raise calls_limited(limit, -left, HOLDS_S)

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


class Callers:
    """Admits calls: their keys, their rates and their scopes."""

    def __init__(self, authenticator: Authenticator, rates: CallRates) -> None:
        self.authenticator, self.rates = authenticator, rates

    def admit(self, turn: Turn, method: str, app: App, *, submits: bool = False) -> None:
        """Admit a call of this app.

        Args: submits: the call may make a job. It uses a call only at its end, unless a job was accepted.
        Raises: AppLimited. PermissionDenied: the scopes do not allow this method.
        """
        # A key that may not submit makes no job.
        (self.rates.check if submits and Scope.SUBMIT in app.scopes else self.rates.use)(app)
        check_scope(app, method)
        turn.caller, turn.calls_due = app, int(submits)
