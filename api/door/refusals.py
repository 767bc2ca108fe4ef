"""Counts refused demand: sums it in the process, and adds it to Postgres every few seconds.

A process that dies loses the counts of its last few seconds.
"""

import logging
import threading
from collections.abc import Mapping
from uuid import UUID

from headrace.domain.fleet import RefusedDemand
from headrace.errors import StoreUnavailable
from headrace.store import Store
from headrace.store.fleet import observations

log = logging.getLogger(__name__)

#: Seconds between writes; the table counts by the minute.
FLUSH_EVERY_S = 3.0

Key = tuple[UUID, str, str]


class Refusals:
    """Counts for all threads of one process. The writer starts with the first refusal."""

    def __init__(self, store: Store, flush_every_s: float = FLUSH_EVERY_S) -> None:
        self._store = store
        self._flush_every_s = flush_every_s
        self._lock = threading.Lock()
        self._counts: dict[Key, RefusedDemand] = {}
        self._stop = threading.Event()
        self._writer: threading.Thread | None = None

    def count(self, app_id: UUID, queue: str, reason: str, tokens: int, expected_tokens: int) -> None:
        """Add one refused job. Args: queue: the one that it wanted."""
        with self._lock:
            self._add({(app_id, queue, reason): RefusedDemand(1, tokens, expected_tokens)})
            if self._writer is None and not self._stop.is_set():
                self._writer = threading.Thread(target=self._write, name="refusals", daemon=True)
                self._writer.start()

    def flush(self) -> None:
        """Write the counts since the last flush. Raises: StoreUnavailable; the counts are then kept."""
        with self._lock:
            counts, self._counts = self._counts, {}
        try:
            with self._store.begin() as db:
                observations.add_refusals(db, counts)
        except StoreUnavailable:
            with self._lock:
                self._add(counts)
            raise

    def _add(self, counts: Mapping[Key, RefusedDemand]) -> None:
        for key, refused in counts.items():
            self._counts[key] = self._counts.get(key, RefusedDemand()) + refused

    def close(self) -> None:
        """Stop the writer."""
        self._stop.set()

    def _write(self) -> None:
        while not self._stop.wait(self._flush_every_s):
            try:
                self.flush()
            except StoreUnavailable as error:
                log.warning("refusals_not_written", extra={"error": str(error)})
            except Exception:
                log.exception("refusals_writer_failed")
