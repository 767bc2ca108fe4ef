"""Body reader: reads one request body, and gives up when its client falls below a minimum rate. Knows no HTTP.

granian streams a body, and its `read` blocks without a timeout until the bytes have come or the connection has closed.
So a separate thread reads, and the request waits for that thread. A request that is answered before its reader has
ended must `join` the reader. Otherwise granian waits for the body while it holds the GIL, and a reader in `read` stops
the whole process.
"""

import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import IO

from api.bodies.threads import ReaderThreads
from headrace.errors import BodyTimeout

#: Bytes per second that a client must send. An app is a server: even a slow uplink of 1 Mbit/s has twice as much. At
#: this rate the largest body by default, 8 MiB, takes 128 s.
MIN_RATE = 64 * 1024
#: Bytes of one read. At the minimum rate a read takes a second, which is short compared with the grace.
CHUNK_BYTES = 64 * 1024


class BodyReader:
    """Reads one body, from its construction on.

    Args:
        size: bytes after which the reading stops; a chunked body may end sooner.

    Attributes:
        has_ended: False while the thread still reads, also after `result` gave up.
    """

    def __init__(self, stream: IO[bytes], size: int, threads: ReaderThreads) -> None:
        self._stream, self._size = stream, size
        self._chunks: list[bytes] = []
        self._received = 0
        self._is_given_up = False
        self._error: Exception | None = None
        self.has_ended = False
        #: One item, at the end. Cheaper than a future: most bodies have come before they are read.
        self._end: SimpleQueue[None] = SimpleQueue()
        self._began = time.monotonic()
        threads.start(self._run)

    def join(self) -> None:
        """Wait until the thread ends: the client must send the rest of a chunk, or close the connection."""
        self._end.get()

    def result(self, grace_s: float) -> bytes:
        """Wait for the whole body. If it times out, the received part is dropped.

        Args: grace_s: how far the client may fall behind `MIN_RATE`.
        Bound: `grace_s` + size / `MIN_RATE`.
        Raises: BodyTimeout: the client fell behind. Any exception of the stream.
        """
        while (left_s := self._began + grace_s + self._received / MIN_RATE - time.monotonic()) > 0:
            with suppress(Empty):
                self._end.get(timeout=left_s)
                if self._error is not None:
                    raise self._error
                return b"".join(self._chunks)
        self._is_given_up = True
        self._chunks.clear()
        raise BodyTimeout(
            f"Less than {(self._received + CHUNK_BYTES) // 1024} KiB of the body came in "
            f"{time.monotonic() - self._began:.0f} s. Nothing was accepted. Send at least {MIN_RATE // 1024} KiB/s: "
            "send fewer large requests at once, or shorter ones."
        )

    def _run(self) -> None:
        try:
            while not self._is_given_up and self._received < self._size:
                chunk = self._stream.read(min(CHUNK_BYTES, self._size - self._received))
                if not chunk:
                    break
                self._chunks.append(chunk)
                self._received += len(chunk)
        except Exception as error:  # The request's thread raises it.
            self._error = error
        self.has_ended = True
        self._end.put(None)
