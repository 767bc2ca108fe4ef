"""A value cached for a few seconds. When it is too old, one thread reads it again for all that wait.

A value that is kept fresh is read again by a thread of its own before it is too old, as long as it is in use.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")

#: The share of its life after which a value that is kept fresh is read again.
RENEW_SHARE = 0.8
#: Seconds that `close` waits for a read: a server that hangs must not hold up the end of the process.
CLOSE_S = 2.0


class CachedValue(Generic[T]):
    """The result of a `read` that began less than `ttl_s` ago.

    A failure is raised to all callers that waited for it: otherwise each would wait out the same time-out in turn. The
    next caller reads again.
    """

    def __init__(self, read: Callable[[], T], ttl_s: float, *, fresh_s: float = 0.0) -> None:
        """Read nothing yet.

        Args: fresh_s: seconds after the last `get` for which a thread keeps the value fresh, so that callers need not
            wait for a read; it ends at a failure. 0 for no such thread.
        """
        self._read = read
        self._ttl_s, self._fresh_s = ttl_s, fresh_s if ttl_s > 0 else 0.0
        self._lock = threading.Lock()
        self._entry: tuple[T, float] | None = None
        self._reading: Future[T] | None = None
        self._used_at = 0.0
        self._is_kept_fresh = False
        self._keeper: threading.Thread | None = None
        self._closed = threading.Event()

    def get(self) -> T:
        """The value. Raises: what `read` raises."""
        # The entry is replaced as a whole, so reading it needs no lock.
        entry, now = self._entry, time.monotonic()
        self._used_at = now
        if entry is not None and now <= entry[1]:
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

    def close(self) -> None:
        """Keep it fresh no longer: no read is under way in the background any more. Bound: `CLOSE_S`."""
        self._closed.set()
        if self._keeper is not None:
            self._keeper.join(CLOSE_S)

    def _settle(self, outcome: Future[T], until: float) -> bool:
        try:
            value = self._read()
        except BaseException as error:
            with self._lock:
                self._reading = None
            outcome.set_exception(error)
            return False
        with self._lock:
            self._entry, self._reading = (value, until), None
            starts, self._is_kept_fresh = self._fresh_s > 0 and not self._is_kept_fresh, self._fresh_s > 0
        outcome.set_result(value)
        if starts and not self._closed.is_set():
            self._keeper = threading.Thread(target=self._keep_fresh, name="keeps-fresh", daemon=True)
            self._keeper.start()
        return True

    def _keep_fresh(self) -> None:
        while not self._closed.wait(RENEW_SHARE * self._ttl_s) and self._renew():
            pass
        self._is_kept_fresh = False

    def _renew(self) -> bool:
        """Read the value again, unless a caller does. False once it is not used, or could not be read."""
        with self._lock:
            now = time.monotonic()
            if now - self._used_at > self._fresh_s:
                return False
            if self._reading is not None:
                return True
            outcome = self._reading = Future()
        return self._settle(outcome, now + self._ttl_s)
