"""What a process was told of full queues a moment ago, so that under a flood it need not ask again for each request.

Pure memory, safe for many threads: an entry is replaced as a whole, and two that ask at once do no harm.
"""

import time
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from headrace.domain.places import Refusal

#: For how long what was told is said again, in seconds, from when it was asked.
REMEMBER_S = 0.02
#: Seconds after which one caller asks again, while the others go on with what is known. Soon: under load the answer
#: takes most of the time that it may be remembered for, since whoever waits for it waits for the GIL as well.
FRESH_S = 0.002
#: Entries at once.
REMEMBERED = 1000
#: How often it is noted anew that an app found a queue full, in seconds.
KNOCK_EVERY_S = 1.0

Key = TypeVar("Key", bound=Hashable)


class _Remembered(NamedTuple):
    refusal: Refusal
    ask_again_at: float
    until: float


class FullQueues(Generic[Key]):
    """Refusals by what was asked: an app and the queues its job may go to."""

    def __init__(self) -> None:
        self._entries: dict[Key, _Remembered] = {}
        self._knocked_at: dict[Hashable, float] = {}

    def recall(self, key: Key) -> Refusal | None:
        """What was told of it; None when whoever calls must ask."""
        entry = self._entries.get(key)
        now = time.monotonic()
        if entry is None or now >= entry.until:
            return None
        if now >= entry.ask_again_at:
            self._entries[key] = entry._replace(ask_again_at=entry.until)
            return None
        return entry.refusal

    def remember(self, key: Key, refusal: Refusal, asked_at: float) -> None:
        """Keep what was told of it just now. Args: asked_at: on the monotonic clock."""
        if len(self._entries) >= REMEMBERED:
            self._entries.clear()
        self._entries[key] = _Remembered(refusal, time.monotonic() + FRESH_S, asked_at + REMEMBER_S)

    def forget(self, key: Key) -> None:
        """There was room."""
        self._entries.pop(key, None)

    def is_knock_due(self, *knock: Hashable) -> bool:
        """True once in a while for the same knock."""
        now = time.monotonic()
        if now - self._knocked_at.get(knock, -KNOCK_EVERY_S) < KNOCK_EVERY_S:
            return False
        if len(self._knocked_at) >= REMEMBERED:
            self._knocked_at.clear()
        self._knocked_at[knock] = now
        return True
