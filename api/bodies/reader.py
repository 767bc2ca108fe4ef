"""Body reader: reads one large request body, for no longer than its client keeps up a minimum rate. Knows no HTTP.

granian streams a body, and its `read` blocks without a timeout until the bytes have come or the connection has closed.
So a thread of its own reads, and the request waits for that thread. A request that is answered meanwhile must `join`
its reader before it ends: granian then waits for the body while it holds the GIL, so that a reader in `read` would stop
the whole process.
"""

import threading
import time
from concurrent import futures
from typing import IO

from headrace.errors import BodyTimeout

#: Bytes per second that a client must send. An app is a server: a slow uplink of 1 Mbit/s has twice as much. At this
#: rate the largest body of the default, 8 MiB, takes 128 s.
MIN_RATE = 64 * 1024
#: Bytes of one read. At the minimum rate one takes a second, which is little beside the grace.
CHUNK_BYTES = 64 * 1024


class BodyReader:
    """The reading of one body, which begins at once.

    Args:
        size: bytes after which the reading stops; a chunked body may end sooner.
    """

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._size = stream, size
        self._chunks: list[bytes] = []
        self._received = 0
        self._is_given_up = False
        self._body: futures.Future[bytes] = futures.Future()
        self._began = time.monotonic()
        # A daemon, so that a client that sends nothing cannot keep the process from its end.
        threading.Thread(target=self._run, name="body", daemon=True).start()

    @property
    def has_ended(self) -> bool:
        """False while the thread still reads, also after the body was given up."""
        return self._body.done()

    def join(self) -> None:
        """Wait until the thread has ended: until the client sends the rest of a chunk, or closes the connection."""
        futures.wait([self._body])

    def result(self, grace_s: float) -> bytes:
        """Wait for the whole body. What was received is dropped where it is given up.

        Args: grace_s: how far the client may fall behind `MIN_RATE`.
        Bound: `grace_s` + size / `MIN_RATE`.
        Raises: BodyTimeout: the client fell behind. What the stream raises.
        """
        while (left_s := self._began + grace_s + self._received / MIN_RATE - time.monotonic()) > 0:
            if futures.wait([self._body], left_s).done:
                return self._body.result()
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
            self._body.set_result(b"".join(self._chunks))
        except Exception as error:  # The request's thread raises it.
            self._body.set_exception(error)
