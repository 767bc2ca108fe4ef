"""Reads a request's body on the event loop: admitted first, as long as its client keeps up, and unpacked."""

import asyncio
import zlib
from functools import partial

from api.bodies.in_flight import MIN_RATE, SMALL_BYTES, Bodies
from api.call import Call
from api.callers import calls_of
from api.handlers.submitting import idempotency_key
from api.mounts.exchange import Exchange
from api.mounts.loop import Threads
from headrace.errors import BodyTimeout, BodyTooLarge, InvalidRequest, UnsupportedEncoding

#: zlib's window of 32 KiB, plus 16: it reads a gzip, with its checksum.
GZIP = 31


class Body:
    """The body of one request. It counts among those in flight until `release`."""

    def __init__(self, bodies: Bodies, limit: int, exchange: Exchange, threads: Threads) -> None:
        """Read nothing yet. Args: limit: the largest body, in bytes. threads: for what blocks."""
        self._bodies, self._limit, self._exchange, self._threads = bodies, limit, exchange, threads
        self._release: partial[None] | None = None

    async def read(self, call: Call) -> bytes:
        """The whole body, unpacked. It counts as calls of its app, unless a job is made of it.

        Raises: BodyTooLarge. UnsupportedEncoding. InvalidRequest. AppLimited. BodiesFull. BodyTimeout.
        """
        headers = self._exchange.headers
        text, is_chunked = headers.get("Content-Length") or "", headers.get("Transfer-Encoding") is not None
        # A chunked body gives no length.
        told = None if is_chunked else int(text) if text.isascii() and text.isdigit() else 0
        if told is not None and told > self._limit:
            raise self._too_large()
        encoding = headers.get("Content-Encoding")
        if encoding is not None and _is_packed(encoding):
            raw = await self._unpacked(call, told)
        elif told is None or told > SMALL_BYTES:
            await self._admit(call, self._limit if told is None else told)
            raw = await self._received(told)
        else:
            with self._bodies.reading_small(call.app.id):
                raw = await self._received(told)
        call.calls_due += calls_of(len(raw))
        if len(raw) > self._limit:
            raise self._too_large()
        return raw

    def release(self) -> None:
        """Stop counting the body."""
        if self._release is not None:
            self._release()
            self._release = None

    async def _admit(self, call: Call, size: int) -> None:
        app = call.app
        await self._threads.run(partial(self._bodies.admit, app, size, idempotency_key(call)), app.id)
        self._release = partial(self._bodies.release, app.id, size)

    async def _unpacked(self, call: Call, told: int | None) -> bytes:
        """What a gzip contains. It counts as the largest body while its content's size is unknown."""
        await self._admit(call, self._limit)
        packed = await self._received(told)
        if len(packed) > self._limit:
            raise self._too_large()
        call.calls_due += calls_of(self._limit)
        raw = await self._threads.run(partial(unpacked, packed, self._limit), call.app.id)
        call.calls_due -= calls_of(self._limit)
        return raw

    async def _received(self, told: int | None) -> bytes:
        """The body as it was sent; of one that is too long, as much as shows that. Raises: BodyTimeout."""
        loop, pieces, received = asyncio.get_running_loop(), list[bytes](), 0
        began = loop.time()
        try:
            async with asyncio.timeout_at(began + self._bodies.grace_s) as deadline:
                while received != told:
                    part = await self._exchange.receive()
                    if part["type"] == "http.disconnect":
                        # It has left, or the server cannot read its chunks.
                        raise InvalidRequest(f"The body breaks off after {received} bytes.", code="invalid_json")
                    pieces.append(part.get("body", b""))
                    received += len(pieces[-1])
                    if not part.get("more_body") or received == told or received > self._limit:
                        break
                    deadline.reschedule(began + self._bodies.grace_s + received / MIN_RATE)
        except TimeoutError:
            raise BodyTimeout(
                f"Less than {received // 1024 + 1} KiB of the body came in {loop.time() - began:.0f} s. Nothing was "
                f"accepted. Send at least {MIN_RATE // 1024} KiB/s: send fewer large requests at once, or shorter ones."
            ) from None
        if told is not None and received < told:
            raise InvalidRequest(f"The body ends after {received} of {told} bytes.", code="invalid_json")
        return b"".join(pieces)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self._limit} bytes.")


def _is_packed(encoding: str) -> bool:
    """Whether the body is a gzip. Raises: UnsupportedEncoding: it is packed in another way."""
    encoding = encoding.strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise UnsupportedEncoding(
            f"The Content-Encoding '{encoding[:40]}' is not read here. Send the body as it is, or with gzip."
        )
    return encoding.endswith("gzip")


def unpacked(raw: bytes, limit: int) -> bytes:
    """Unpack a gzip, up to one byte more than `limit`: that byte tells a body that is too large.

    Raises: InvalidRequest: it is no gzip, or not a whole one.
    """
    unpacker = zlib.decompressobj(GZIP)
    try:
        found = unpacker.decompress(raw, limit + 1)
    except zlib.error as error:
        raise InvalidRequest("The body is no gzip, as its Content-Encoding says.", code="invalid_encoding") from error
    if len(found) <= limit and (not unpacker.eof or unpacker.unused_data):
        raise InvalidRequest("The body must be one whole gzip.", code="invalid_encoding")
    return found
