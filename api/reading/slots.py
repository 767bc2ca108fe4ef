"""Slots: how many requests of one kind a process holds open, shared fairly among the apps that want some.

The rule is that of admission (`reserve.lua`): an app alone may have them all; once a second one holds or asks, neither
has more than its share. Pure memory, safe for many threads.
"""

import math
import threading
import time
from collections import Counter
from uuid import UUID

#: For how long a slot is kept for an app that was refused one, in seconds. It is told to come back after one.
KNOCK_S = 5.0


class Slot:
    """One open request of an app. Given back once, however often it is released."""

    def __init__(self, slots: "Slots", app_id: UUID) -> None:
        self._slots, self._app_id = slots, app_id
        self._lock = threading.Lock()
        self._is_held = True
        self.is_handed_over = False

    def hand_over(self) -> None:
        """Keep the slot beyond the request: the caller of this releases it."""
        self.is_handed_over = True

    def release(self) -> None:
        """Give the slot back."""
        with self._lock:
            is_held, self._is_held = self._is_held, False
        if is_held:
            self._slots.give_back(self._app_id)


class Slots:
    """The slots of one process, by the apps that hold them."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._held = Counter[UUID]()
        self._knocks: dict[UUID, float] = {}

    def take(self, app_id: UUID) -> Slot | None:
        """A slot, or None: all are taken, or the app has its share while others want some."""
        with self._lock:
            now, own = time.monotonic(), self._held[app_id]
            self._knocks = {app: until for app, until in self._knocks.items() if until > now and app != app_id}
            free = self._count - self._held.total()
            share = math.ceil(self._count / len({app_id, *self._held, *self._knocks}))
            # Shares are rounded up: without this the last of many apps may find that the others have all slots.
            kept = sum(not self._held[app] for app in self._knocks) if own else 0
            if free > kept and own < share:
                self._held[app_id] += 1
                return Slot(self, app_id)
            if own < share:
                self._knocks[app_id] = now + KNOCK_S
            return None

    def give_back(self, app_id: UUID) -> None:
        """Free one slot of the app."""
        with self._lock:
            self._held[app_id] -= 1
            if not self._held[app_id]:
                del self._held[app_id]
