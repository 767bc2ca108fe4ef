"""A semaphore that serves apps in turn. Pure memory, safe for many threads."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID


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
