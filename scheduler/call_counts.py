"""Calls of the providers that start and end hosts, counted for the metrics. Pure."""

import threading
from collections import Counter


class CallCounts:
    """How many calls were made for each pool, and how many of them failed. Safe for many threads."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def add(self, pool: str, *, failed: bool) -> None:
        """Count one call."""
        with self._lock:
            self._counts[pool, "failed" if failed else "answered"] += 1

    def snapshot(self) -> dict[tuple[str, str], int]:
        """The counts by pool and outcome: `answered` or `failed`."""
        with self._lock:
            return dict(self._counts)
