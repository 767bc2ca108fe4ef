"""One waiter's watch of one job: its news, and whether the waiter's client is still there. Knows no server."""

import threading
import time
from collections import deque
from uuid import UUID

from api.reading.peers import Connections, Peer
from headrace.broker.news import ToldPiece

#: So many looks in a row must miss a client: the kernel does not list all connections in one step.
LOOKS_TO_BE_SURE = 2
#: Pieces kept for a waiter that does not fetch them. If older ones are dropped, it reads its stream.
MOST_PIECES = 64


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
        self._pieces = deque[ToldPiece | None](maxlen=MOST_PIECES)
        self._peer, self._began, self._misses = peer, time.monotonic(), 0

    def tell(self, *, has_ended: bool, piece: ToldPiece | None = None) -> None:
        """Wake the waiter: the job has ended, or its stream may have more. Args: piece: all that it has more."""
        self.has_ended |= has_ended
        self._pieces.append(piece)
        self._news.set()

    def pieces(self) -> list[ToldPiece] | None:
        """The pieces told since the last call; None if the stream must be read, as its news did not say what is new."""
        told = []
        while self._pieces:
            told.append(self._pieces.popleft())
        pieces = [piece for piece in told if piece is not None]
        return pieces if pieces and len(pieces) == len(told) else None

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
