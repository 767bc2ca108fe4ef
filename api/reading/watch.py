"""One waiter's watch of one job: its news. Knows no server."""

from collections import deque
from uuid import UUID

from api.call import Wake
from headrace.broker.news import ToldPiece

#: Pieces kept for a waiter that does not fetch them. If older ones are dropped, it reads its stream.
MOST_PIECES = 64


class Watch:
    """News of one job for one waiter.

    Attributes:
        has_ended: True once the job's end was announced or seen. The waiter may reset it.
        job_ids: the job, and the job whose answer it waits for.
    """

    def __init__(self, wake: Wake) -> None:
        self.has_ended = False
        self.job_ids: set[UUID] = set()
        self._wake = wake
        self._pieces = deque[ToldPiece | None](maxlen=MOST_PIECES)

    def tell(self, *, has_ended: bool, piece: ToldPiece | None = None) -> None:
        """Wake the waiter: the job has ended, or its stream may have more. Args: piece: all that it has more."""
        self.has_ended |= has_ended
        self._pieces.append(piece)
        self._wake()

    def pieces(self) -> list[ToldPiece] | None:
        """The pieces told since the last call; None if the stream must be read, as its news did not say what is new."""
        told = []
        while self._pieces:
            told.append(self._pieces.popleft())
        pieces = [piece for piece in told if piece is not None]
        return pieces if pieces and len(pieces) == len(told) else None
