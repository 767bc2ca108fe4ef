"""What the apps of a process share: slots of requests that are held open, and turns at what few may do at once.

Pure memory, safe for many threads.
"""

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

#: How long a slot is kept for an app that was refused one, in seconds. The app's Retry-After is 1 s.
KNOCK_S = 5.0


class Slot:
    """One open request of an app. Only the first `release` frees it."""

    def __init__(self, slots: "Slots", app_id: UUID) -> None:
        self._slots, self._app_id = slots, app_id
        self._lock = threading.Lock()
        self._is_held = True
        self.is_handed_over = False

    def hand_over(self) -> None:
        """Keep the slot beyond `Waits.hold`: the caller of this method must release it."""
        self.is_handed_over = True

    def release(self) -> None:
        """Give the slot back."""
        with self._lock:
            is_held, self._is_held = self._is_held, False
        if is_held:
            self._slots.give_back(self._app_id)


class Slots:
    """The slots of one process, by the apps that hold them."""

    def __init__(self, count: int, app_share: float = 1.0) -> None:
        """Args: app_share: the share of the slots that one app may hold, also where it is alone."""
        self._count, self._most_of_app = count, max(1, int(count * app_share))
        self._lock = threading.Lock()
        self._held = Counter[UUID]()
        self._knocks: dict[UUID, float] = {}

    @property
    def count(self) -> int:
        """The slots, held or free."""
        return self._count

    @property
    def held(self) -> int:
        """The slots that are held."""
        with self._lock:
            return self._held.total()

    def take(self, app_id: UUID) -> Slot | None:
        """A slot; None when all are taken, or when the app has its share and others want slots."""
        with self._lock:
            now, own = time.monotonic(), self._held[app_id]
            self._knocks = {app: until for app, until in self._knocks.items() if until > now and app != app_id}
            free = self._count - self._held.total()
            share = min(self._most_of_app, math.ceil(self._count / len({app_id, *self._held, *self._knocks})))
            # Shares are rounded up: without `kept`, the other apps' shares may leave none for the last app.
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


class FairSemaphore:
    """Limits how many callers do something at once.

    A waiting app gets a slot before any app that was served while it waited. So an app's next caller waits for at most
    one turn of each other app, however many callers the others have.
    """

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._lock = threading.Lock()
        #: The waiters of each app, oldest first. The first app is next.
        self._waiting: dict[UUID, deque[threading.Event]] = {}

    @contextmanager
    def hold(self, app_id: UUID) -> Iterator[None]:
        """Hold a slot; waits for one."""
        self._acquire(app_id)
        try:
            yield
        finally:
            self._release()

    def _acquire(self, app_id: UUID) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            called = threading.Event()
            self._waiting.setdefault(app_id, deque()).append(called)
        called.wait()

    def _release(self) -> None:
        """Hand the slot directly to the next app in turn, so that a newcomer cannot take it; or free it."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            app_id = next(iter(self._waiting))
            waiters = self._waiting.pop(app_id)
            waiters.popleft().set()
            if waiters:
                self._waiting[app_id] = waiters
