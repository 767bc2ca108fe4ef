"""One HTTP exchange on the event loop, as ASGI has it: headers, the body as its client sends it, and the reply.

A body is admitted before it is read, for as long as its client keeps up, and unpacked.
"""

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from functools import partial

from api.auth import calls_of
from api.bodies import MIN_RATE, SMALL_BYTES, Bodies
from api.call import Call, Reply, Upload
from api.handlers.submitting import idempotency_key
from api.mounts.loop import Threads
from headrace.errors import BodyTimeout, BodyTooLarge, InvalidRequest, UnsupportedEncoding
from headrace.http import Receive, Scope, Send


class RequestHeaders:
    """A request's headers, by their names in any case. Several of one name are one."""

    __slots__ = ("_by_name", "_pairs")

    def __init__(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs
        self._by_name = dict(pairs)

    def get(self, name: str, /) -> str | None:
        """The value; None without this header."""
        key = name.lower().encode()
        if (value := self._by_name.get(key)) is None:
            return None
        if len(self._by_name) < len(self._pairs):
            value = b", ".join(text for other, text in self._pairs if other == key)
        return value.decode("latin-1")


#: Seconds beside the grace, at most, by which a client may fall behind later that has taken more than `MIN_RATE`.
EARNED_S = 60.0


class Exchange:
    """One exchange.

    Attributes:
        path: as WSGI has it: the decoded bytes as latin-1.
        receive: the body's next part.
        lag_s: how far its client may still fall behind `MIN_RATE` while it takes a reply's parts; None: without end.
        is_cut: the client fell behind. The reply breaks off, and the server closes the connection.
    """

    __slots__ = ("_lag_max_s", "_send", "headers", "is_cut", "lag_s", "method", "path", "query", "receive")

    def __init__(self, scope: Scope, receive: Receive, send: Send, grace_s: float) -> None:
        """Args: grace_s: how far its client may fall behind from the start."""
        self.receive, self._send = receive, send
        self.method: str = scope["method"]
        self.headers = RequestHeaders(scope["headers"])
        self.query: str = scope["query_string"].decode("latin-1")
        path: str = scope["path"]
        self.path = path if path.isascii() else path.encode().decode("latin-1")
        self.lag_s: float | None = grace_s
        self._lag_max_s = grace_s + EARNED_S
        self.is_cut = False

    async def respond(self, status: int, headers: Mapping[str, str], body: bytes | None) -> None:
        """Send a whole reply. Of one whose body is None, send the head: `send` and `end` follow."""
        pairs = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()]
        if body is not None and "Content-Length" not in headers:
            pairs.append((b"Content-Length", str(len(body)).encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})
        if body is not None:
            await self._send({"type": "http.response.body", "body": body})

    async def send(self, data: bytes) -> None:
        """Send a part of the body; waits while a few are on their way."""
        sending = self._send({"type": "http.response.body", "body": data, "more_body": True})
        if self.lag_s is None:
            await sending
            return
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self.lag_s):
                await sending
        except TimeoutError:
            self.is_cut = True
        self.lag_s = min(self.lag_s + len(data) / MIN_RATE - (loop.time() - began), self._lag_max_s)

    async def end(self) -> None:
        """End the body, unless it breaks off: without its end, the server closes the connection."""
        if not self.is_cut:
            await self._send({"type": "http.response.body", "body": b""})

    async def left(self) -> None:
        """Return once the client has closed its connection. The body must have been read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


MIB = 1024 * 1024
#: Bytes of an upload that one call of a thread takes.
UPLOAD_BYTES = 256 * 1024
#: zlib's window of 32 KiB, plus 16: it reads a gzip, with its checksum.
GZIP = 31


class BodyReader:
    """Reads the bodies of a process. Each counts among those in flight until `release`."""

    def __init__(self, bodies: Bodies, limit: int, threads: Threads) -> None:
        """Args: limit: the largest body, in bytes. threads: for what blocks."""
        self._bodies, self._limit, self._threads = bodies, limit, threads

    async def read(self, exchange: Exchange, call: Call) -> bytes:
        """The whole body, unpacked. It counts as calls of its app, unless a job is made of it.

        Raises: BodyTooLarge. UnsupportedEncoding. InvalidRequest. AppLimited. BodiesFull. BodyTimeout.
        """
        length = call.length
        if length is not None and length > self._limit:
            raise self._too_large()
        encoding = exchange.headers.get("Content-Encoding")
        if encoding is not None and _is_packed(encoding):
            raw = await self._unpacked(exchange, call, length)
        elif length is None or length > SMALL_BYTES:
            await self._admit(call, self._limit if length is None else length)
            raw = await self._received(exchange, length)
        else:
            with self._bodies.reading_small(call.app.id):
                raw = await self._received(exchange, length)
        call.calls_due += calls_of(len(raw))
        if len(raw) > self._limit:
            raise self._too_large()
        return raw

    def release(self, call: Call) -> None:
        """Stop counting the call's body."""
        if call.body_in_flight:
            self._bodies.release(call.app.id, call.body_in_flight)
            call.body_in_flight = 0

    async def _admit(self, call: Call, size: int) -> None:
        app = call.app
        await self._threads.run(partial(self._bodies.admit, app, size, idempotency_key(call)), app.id)
        call.body_in_flight = size

    async def _unpacked(self, exchange: Exchange, call: Call, length: int | None) -> bytes:
        """What a gzip contains. It counts as the largest body while its content's size is unknown."""
        await self._admit(call, self._limit)
        packed = await self._received(exchange, length)
        if len(packed) > self._limit:
            raise self._too_large()
        call.calls_due += calls_of(self._limit)
        raw = await self._threads.run(partial(unpacked, packed, self._limit), call.app.id)
        call.calls_due -= calls_of(self._limit)
        return raw

    async def upload(self, exchange: Exchange, call: Call, upload: Upload) -> Reply:
        """Give the body to an upload by parts, and return its reply. Each MiB counts as a call of its app.

        Raises: UnsupportedEncoding. BodyTimeout. InvalidRequest, and what else the upload raises.
        """
        loop, app_id, parts = asyncio.get_running_loop(), call.app.id, bytearray()
        began, received, is_whole = loop.time(), 0, False
        try:
            if _is_packed(exchange.headers.get("Content-Encoding") or ""):
                raise UnsupportedEncoding("A file is not unpacked here. Send it as it is.")
            while not is_whole:
                part, is_whole = await self._next(exchange, call.length, received, began)
                received += len(part)
                parts += part
                if is_whole or len(parts) >= UPLOAD_BYTES:
                    paused_at = loop.time()
                    await self._threads.run(partial(upload.take, bytes(parts)), app_id)
                    # What is done with it is not its client's time.
                    began += loop.time() - paused_at
                    parts.clear()
            call.calls_due += 1 + received // MIB
            return await self._threads.run(upload.finish, app_id)
        except BaseException:
            await self._threads.run(upload.abandon, app_id)
            raise

    async def _received(self, exchange: Exchange, length: int | None) -> bytes:
        """The body as it was sent; of one that is too long, as much as shows that. Raises: as `_next`."""
        pieces, received, is_whole = list[bytes](), 0, length == 0
        began = asyncio.get_running_loop().time()
        while not is_whole and received <= self._limit:
            piece, is_whole = await self._next(exchange, length, received, began)
            pieces.append(piece)
            received += len(piece)
        return b"".join(pieces)

    async def _next(self, exchange: Exchange, length: int | None, received: int, began: float) -> tuple[bytes, bool]:
        """The next part of a body, and whether it is the last.

        Args: length: the body's length; None in chunks. began: when the first part was asked for, on the loop's clock.
        Raises: BodyTimeout: its client does not keep up. InvalidRequest: it breaks off.
        """
        try:
            async with asyncio.timeout_at(began + self._bodies.grace_s + received / MIN_RATE):
                part = await exchange.receive()
        except TimeoutError:
            seconds = asyncio.get_running_loop().time() - began
            raise BodyTimeout(
                f"Less than {received // 1024 + 1} KiB of the body came in {seconds:.0f} s. Nothing was "
                f"accepted. Send at least {MIN_RATE // 1024} KiB/s: send fewer large requests at once, or shorter ones."
            ) from None
        if part["type"] == "http.disconnect":
            # It has left, or the server cannot read its chunks.
            raise InvalidRequest(f"The body breaks off after {received} bytes.", code="invalid_json")
        piece: bytes = part.get("body", b"")
        size = received + len(piece)
        is_last = not part.get("more_body") or size == length
        if is_last and length is not None and size < length:
            raise InvalidRequest(f"The body ends after {size} of {length} bytes.", code="invalid_json")
        return piece, is_last

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
    """Unpack a gzip, up to one byte more than `limit`: that byte shows a body that is too large.

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
