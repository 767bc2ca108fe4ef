"""A value that may be a few seconds old: read again when it is older, by one thread at a time."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Cached(Generic[T]):
    """What `read` returned less than `ttl_s` ago. A failing read raises, and the next caller tries again."""

    def __init__(self, read: Callable[[], T], ttl_s: float) -> None:
        self._read = read
        self._ttl_s = ttl_s
        self._lock = threading.Lock()
        self._entry: tuple[T, float] | None = None

    def get(self) -> T:
        """The value."""
        with self._lock:
            if self._entry is None or self._entry[1] < time.monotonic():
                self._entry = (self._read(), time.monotonic() + self._ttl_s)
            return self._entry[0]
