"""A cache of refusals by full queues, so that under a flood a process does not ask Redis for each request.

Pure memory, safe for many threads: an entry is replaced as a whole, and two threads that ask at once do no harm.
"""

import math
import time
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

#: How long a refusal is repeated, in seconds after Redis was asked.
REMEMBER_S = 0.02
#: Seconds after which one caller asks again, while the others use the cached refusal. It is shorter than `REMEMBER_S`
#: because under load an answer takes milliseconds: the caller waits for the GIL as well as for Redis.
FRESH_S = 0.006
#: Entries at most.
REMEMBERED = 1000
#: Seconds between two knocks of one app at the same full queue.
KNOCK_EVERY_S = 1.0

Key = TypeVar("Key", bound=Hashable)
#: What is told of the refusal.
Told = TypeVar("Told")


class _Remembered(NamedTuple, Generic[Told]):
    told: Told
    ask_again_at: float
    until: float


class FullQueues(Generic[Key, Told]):
    """Cached refusals, by what makes jobs alike: their app and the queues that they may go to."""

    def __init__(self) -> None:
        self._entries: dict[Key, _Remembered[Told]] = {}
        self._knocked_at: dict[Hashable, float] = {}
        #: When the last refusal is repeated for the last time.
        self._until = -math.inf

    @property
    def is_empty(self) -> bool:
        """True while no refusal is repeated."""
        return time.monotonic() >= self._until

    def recall(self, key: Key) -> Told | None:
        """The cached refusal; None when the caller must ask Redis."""
        entry = self._entries.get(key)
        now = time.monotonic()
        if entry is None or now >= entry.until:
            return None
        if now >= entry.ask_again_at:
            self._entries[key] = entry._replace(ask_again_at=entry.until)
            return None
        return entry.told

    def asked_at(self, key: Key) -> float | None:
        """When Redis was asked for the cached refusal, on the monotonic clock; None without one."""
        entry = self._entries.get(key)
        return None if entry is None else entry.until - REMEMBER_S

    def remember(self, key: Key, told: Told, asked_at: float) -> None:
        """Cache a refusal. Args: asked_at: when Redis was asked, on the monotonic clock."""
        if len(self._entries) >= REMEMBERED:
            self._entries.clear()
        self._entries[key] = _Remembered(told, time.monotonic() + FRESH_S, asked_at + REMEMBER_S)
        self._until = max(self._until, asked_at + REMEMBER_S)

    def forget(self, key: Key) -> None:
        """Drop the refusal: the queue has room again."""
        self._entries.pop(key, None)

    def is_knock_due(self, *knock: Hashable) -> bool:
        """True at most once every `KNOCK_EVERY_S` for the same knock."""
        now = time.monotonic()
        if now - self._knocked_at.get(knock, -KNOCK_EVERY_S) < KNOCK_EVERY_S:
            return False
        if len(self._knocked_at) >= REMEMBERED:
            self._knocked_at.clear()
        self._knocked_at[knock] = now
        return True
