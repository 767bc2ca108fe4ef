"""One waiter's watch of one job: its news, and whether the waiter's client is still there. Knows no server."""

import threading
import time
from uuid import UUID

from api.reading.peers import Connections, Peer

#: So many looks in a row must miss a client: the kernel does not list all connections in one step.
LOOKS_TO_BE_SURE = 2


class Watch:
    """News of one job for one waiter.

    Attributes:
        has_ended: True once the job's end was announced or seen. The waiter may reset it.
        is_abandoned: True once the waiter's client has gone.
        job_ids: the job, and the job whose answer it waits for.
    """

    def __init__(self, peer: Peer | None = None) -> None:
        self.has_ended = self.is_abandoned = False
        self.job_ids: set[UUID] = set()
        self._news = threading.Event()
        self._peer, self._began, self._misses = peer, time.monotonic(), 0

    def tell(self, *, has_ended: bool) -> None:
        """Wake the waiter: the job has ended, or its stream may have more."""
        self.has_ended |= has_ended
        self._news.set()

    def wait(self, timeout_s: float) -> bool:
        """Return True when there is news since the last call, False after `timeout_s` without any."""
        is_news = self._news.wait(timeout_s)
        self._news.clear()
        return is_news

    def age_s(self, now: float) -> float | None:
        """Seconds since the wait began; None where its client is unknown, or has gone."""
        return None if self._peer is None or self.is_abandoned else now - self._began

    def look_for_client(self, found: Connections, now: float) -> None:
        """Abandon the wait once two looks in a row missed its client. Args: now: before the connections were listed."""
        age_s = self.age_s(now)
        if self._peer is None or age_s is None:
            return
        self._misses = 0 if found.may_have(self._peer, age_s) else self._misses + 1
        if self._misses == LOOKS_TO_BE_SURE:
            self.is_abandoned = True
            self._news.set()
