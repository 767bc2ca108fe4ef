"""A value cached for a few seconds. When it is too old, one thread reads it again for all that wait."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class CachedValue(Generic[T]):
    """The result of a `read` that began less than `ttl_s` ago.

    A failure is raised to all callers that waited for it: otherwise each would wait out the same time-out in turn. The
    next caller reads again.
    """

    def __init__(self, read: Callable[[], T], ttl_s: float) -> None:
        self._read = read
        self._ttl_s = ttl_s
        self._lock = threading.Lock()
        self._entry: tuple[T, float] | None = None
        self._reading: Future[T] | None = None

    def get(self) -> T:
        """The value. Raises: what `read` raises."""
        # The entry is replaced as a whole, so reading it needs no lock.
        entry = self._entry
        if entry is not None and time.monotonic() <= entry[1]:
            return entry[0]
        with self._lock:
            now = time.monotonic()
            if self._entry is not None and now <= self._entry[1]:
                return self._entry[0]
            outcome = self._reading
            if is_first := outcome is None:
                outcome = self._reading = Future()
        if is_first:
            self._settle(outcome, now + self._ttl_s)
        return outcome.result()

    def _settle(self, outcome: Future[T], until: float) -> None:
        try:
            value = self._read()
        except BaseException as error:
            with self._lock:
                self._reading = None
            outcome.set_exception(error)
            return
        with self._lock:
            self._entry, self._reading = (value, until), None
        outcome.set_result(value)
