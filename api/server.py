"""The server's side of every call (ASGI): its turn, its body, and replies that are held open. Knows no route.

The loop reads bodies and sends replies. The Flask app answers in a thread, because tokenizers, scrypt, psycopg and
redis-py block. A wait and a stream hold a thread only while there is news of them. A body is admitted before it is
read, for as long as its client keeps up, and unpacked.
"""

import asyncio
import io
import logging
import time
import zlib
from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import partial
from typing import Any, TypeVar

from flask import Flask, Response

from api.auth import calls_of
from api.bodies import MIN_RATE, SMALL_BYTES, Bodies
from api.calls import Later, Stream
from api.threads import Mailbox, Threads
from api.turns import TURN, ClientGone, Headers, Step, Turn, Wake, idempotency_key
from headrace.domain.apps import App
from headrace.errors import (
    BodyTimeout,
    BodyTooLarge,
    HeaderTooLarge,
    HeadraceError,
    InvalidRequest,
    UnsupportedEncoding,
)
from headrace.http import Receive, Scope, Send, check_headers, environ_of

log = logging.getLogger(__name__)

#: Threads that run the Flask app, and the steps of waits and streams.
THREADS = 112
#: Threads for the views of uploads, each of which has one for as long as its client sends. There are twice as many as
#: slots for files, so that a view above its app's share is called, and refuses at once.
UPLOAD_THREADS = 128
#: Bytes of an upload that its view takes at once.
PART_BYTES = 256 * 1024
#: Seconds beside the grace, at most, by which a client may fall behind later that has taken more than `MIN_RATE`.
EARNED_S = 60.0
#: Bytes that are unpacked at once. The rest of the gzip is copied in between.
PIECE_BYTES = 1024 * 1024
#: zlib's window of 32 KiB, plus 16: it reads a gzip, with its checksum.
GZIP = 31

Value = TypeVar("Value")
Steps = Generator[Step, None, Value]
#: Decides how a call is served, by its method, path and headers, before a byte of its body is read. It never raises:
#: the turn has the error.
Admit = Callable[[Threads, str, str, Headers], Awaitable[Turn]]


class Server:
    """An ASGI app around a Flask app."""

    _threads: Threads
    _uploads: Threads
    _mailbox: Mailbox
    _bodies: "BodyReader"

    def __init__(
        self, flask: Flask, admit: Admit, bodies: Bodies, body_limit: int, begin: Callable[[], object]
    ) -> None:
        """Serve nothing yet.

        Args:
            body_limit: the largest body, in bytes.
            begin: called at the first request, on the event loop.
        """
        self.flask, self._admit, self._begin = flask, admit, begin
        self._body_terms = bodies, body_limit
        self._has_begun = False

    def close(self) -> None:
        """Stop the threads that are idle."""
        if self._has_begun:
            self._threads.close()
            self._uploads.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        if not self._has_begun:
            self._has_begun = True
            self._mailbox = Mailbox(asyncio.get_running_loop())
            self._threads, self._uploads = Threads(THREADS, self._mailbox), Threads(UPLOAD_THREADS, self._mailbox)
            self._bodies = BodyReader(*self._body_terms, self._threads)
            self._begin()
        exchange = Exchange(scope, receive, send, self._bodies.grace_s)
        try:
            check_headers(scope["headers"])
        except HeaderTooLarge as error:
            turn = Turn()
            turn.refuse(error)
        else:
            turn = await self._admit(self._threads, scope["method"], scope["path"], exchange.headers)
        try:
            response = await self._answer(exchange, turn)
            if isinstance(response, Later):
                # A wait takes minutes. The body is not needed any more.
                self._bodies.release(turn)
                try:
                    turn.later = partial(response.end, await self._follow(exchange, response.steps, turn))
                except Exception as error:
                    turn.refuse(error)
                response = await self._run(environ_of(scope, exchange.address), turn)
            self._bodies.release(turn)
            await self._send(exchange, turn, response)
        finally:
            self._bodies.release(turn)
            # The error's frames refer to the turn. The server closes a connection whose body was not read once nothing
            # refers to the exchange, and the garbage collector would be late for that.
            turn.error = None
            if turn.closing:
                await self._threads.run(partial(_close, turn), turn.line)

    async def _answer(self, exchange: "Exchange", turn: Turn) -> Response:
        """Returns the app's response to a call, or to what is wrong with its body."""
        body = b""
        try:
            if turn.body == "whole" and turn.error is None:
                body = await self._bodies.read(exchange, turn)
        except Exception as error:
            turn.refuse(error)
        environ = environ_of(exchange.scope, exchange.address, body)
        if turn.body == "parts" and turn.error is None:
            environ["wsgi.input"] = PartsReader(self._bodies, exchange)
            environ["CONTENT_LENGTH"] = "" if exchange.length is None else str(exchange.length)
        return await self._run(environ, turn)

    async def _run(self, environ: dict[str, Any], turn: Turn) -> Response:
        """Have the app answer: here, if no server need be asked, else in a thread."""
        environ[TURN] = turn
        if turn.is_instant:
            return self._respond(environ)
        threads = self._uploads if turn.body == "parts" else self._threads
        return await threads.run(partial(self._respond, environ), turn.line)

    def _respond(self, environ: dict[str, Any]) -> Response:
        """Call the app as its `wsgi_app` does, without the round trip through WSGI, which knows no held response."""
        with self.flask.request_context(environ):
            try:
                response = self.flask.full_dispatch_request()
            except Exception as error:
                response = self.flask.handle_exception(error)
            response.headers = response.get_wsgi_headers(environ)
            return response

    async def _send(self, exchange: "Exchange", turn: Turn, response: Response) -> None:
        if not isinstance(response, Stream):
            has_body = response.status_code not in (204, 304)
            await exchange.respond(response, response.get_data() if has_body else b"")
            return
        if not response.is_download:
            exchange.lag_s = None
        await exchange.respond(response, None)
        if exchange.scope["method"] != "HEAD":
            await self._follow(exchange, response.steps, turn)
        await exchange.end()

    async def _follow(self, exchange: "Exchange", steps_of: Callable[[Wake], Steps[Value]], turn: Turn) -> Value:
        """Take the steps of a call that is held open, as there is news, or once its client has left."""
        news = asyncio.Event()
        steps = steps_of(partial(self._mailbox.post, news.set))
        leaving = asyncio.get_running_loop().create_task(exchange.left())
        leaving.add_done_callback(lambda _: news.set())
        try:
            while True:
                news.clear()
                step = await self._threads.run(partial(_next, steps, leaving.done() or exchange.is_cut), turn.line)
                if not isinstance(step, Step):
                    return step[0]
                if step.data:
                    await exchange.send(step.data)
                if (left_s := step.until - time.monotonic()) > 0 and not (leaving.done() or exchange.is_cut):
                    await _wait(news, left_s)
        finally:
            # A receiver that stays would take what the connection's next request brings.
            leaving.cancel()


def _next(steps: Steps[Value], has_left: bool) -> Step | tuple[Value]:
    """Returns the next step; at the end its value, in a tuple."""
    try:
        return steps.throw(ClientGone()) if has_left else next(steps)
    except StopIteration as end:
        return (end.value,)


async def _wait(news: asyncio.Event, for_s: float) -> None:
    try:
        async with asyncio.timeout(for_s):
            await news.wait()
    except TimeoutError:
        pass


def _close(turn: Turn) -> None:
    """Do what a call leaves to be done."""
    for close in turn.closing:
        try:
            close()
        except Exception:
            log.exception("close_failed")


class RequestHeaders:
    """A request's headers, by their names in any case. Several of one name are one."""

    __slots__ = ("_by_name", "_pairs")

    def __init__(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs
        self._by_name = dict(pairs)

    def get(self, name: str, /) -> str | None:
        """Returns the value; None without this header."""
        key = name.lower().encode()
        if (value := self._by_name.get(key)) is None:
            return None
        if len(self._by_name) < len(self._pairs):
            value = b", ".join(text for other, text in self._pairs if other == key)
        return value.decode("latin-1")


class Exchange:
    """One exchange with a client.

    Attributes:
        receive: the body's next part.
        length: the bytes of the body, as the client gave them; None: the body is sent in chunks.
        lag_s: how far the client may still fall behind `MIN_RATE` while it takes a reply's parts; None: without end.
        is_cut: the client fell behind. The reply breaks off, and the server closes the connection.
    """

    __slots__ = ("_lag_max_s", "_send", "address", "headers", "is_cut", "lag_s", "length", "receive", "scope")

    def __init__(self, scope: Scope, receive: Receive, send: Send, grace_s: float) -> None:
        """Args: grace_s: how far the client may fall behind from the start."""
        self.scope, self.receive, self._send = scope, receive, send
        self.headers = RequestHeaders(scope["headers"])
        self.address: str = (scope.get("client") or [""])[0]
        self.length = _length(self.headers)
        self.lag_s: float | None = grace_s
        self._lag_max_s = grace_s + EARNED_S
        self.is_cut = False

    async def respond(self, response: Response, body: bytes | None) -> None:
        """Send a whole reply. Of one whose body is None, send the head: `send` and `end` follow."""
        pairs = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in response.headers]
        if body is not None and "Content-Length" not in response.headers:
            pairs.append((b"Content-Length", str(len(body)).encode()))
        await self._send({"type": "http.response.start", "status": response.status_code, "headers": pairs})
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


def _length(headers: Headers) -> int | None:
    if headers.get("Transfer-Encoding") is not None:
        return None
    text = headers.get("Content-Length") or ""
    return int(text) if text.isascii() and text.isdigit() else 0


class BodyReader:
    """Reads the bodies of a process. Each counts among those in flight until `release`."""

    def __init__(self, bodies: Bodies, limit: int, threads: Threads) -> None:
        """Args: limit: the largest body, in bytes. threads: for what blocks."""
        self._bodies, self._limit, self._threads = bodies, limit, threads
        self.grace_s = bodies.grace_s

    async def read(self, exchange: Exchange, turn: Turn) -> bytes:
        """Reads the whole body, and unpacks it. It counts as calls of its app, unless a job is made of it.

        Raises: BodyTooLarge. UnsupportedEncoding. InvalidRequest. AppLimited. BodiesFull. BodyTimeout.
        """
        length, app = exchange.length, _app(turn)
        if length is not None and length > self._limit:
            raise self._too_large()
        encoding = exchange.headers.get("Content-Encoding")
        if encoding is not None and _is_packed(encoding):
            raw = await self._unpacked(exchange, turn, length)
        elif length is None or length > SMALL_BYTES:
            await self._admit(exchange, turn, self._limit if length is None else length)
            raw = await self._received(exchange, length)
        else:
            with self._bodies.reading_small(app.id):
                raw = await self._received(exchange, length)
        turn.calls_due += calls_of(len(raw))
        if len(raw) > self._limit:
            raise self._too_large()
        return raw

    def release(self, turn: Turn) -> None:
        """Stop counting the call's body."""
        if turn.body_in_flight:
            self._bodies.release(_app(turn).id, turn.body_in_flight)
            turn.body_in_flight = 0

    async def _admit(self, exchange: Exchange, turn: Turn, size: int) -> None:
        app = _app(turn)
        await self._threads.run(partial(self._bodies.admit, app, size, idempotency_key(exchange.headers)), app.id)
        turn.body_in_flight = size

    async def _unpacked(self, exchange: Exchange, turn: Turn, length: int | None) -> bytes:
        """What a gzip contains. It counts as the largest body while its content's size is unknown."""
        await self._admit(exchange, turn, self._limit)
        packed = await self._received(exchange, length)
        pieces = list[bytes]()
        try:
            if len(packed) > self._limit:
                raise self._too_large()
            await self._threads.run(partial(unpack, packed, self._limit, pieces), _app(turn).id)
        except HeadraceError:
            turn.calls_due += calls_of(max(len(packed), sum(map(len, pieces))))
            raise
        return b"".join(pieces)

    async def _received(self, exchange: Exchange, length: int | None) -> bytes:
        """Returns the body as it was sent; of one that is too long, as much as shows that. Raises: as `next`."""
        pieces, received, is_whole = list[bytes](), 0, length == 0
        began = asyncio.get_running_loop().time()
        while not is_whole and received <= self._limit:
            piece, is_whole = await self.next(exchange, length, received, began)
            pieces.append(piece)
            received += len(piece)
        return b"".join(pieces)

    async def next(self, exchange: Exchange, length: int | None, received: int, began: float) -> tuple[bytes, bool]:
        """Returns the next part of a body, and whether it is the last.

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


def _app(turn: Turn) -> App:
    assert turn.caller is not None, "A call with a body has a key."
    return turn.caller


class PartsReader(io.RawIOBase):
    """The body of an upload, for a view that reads it in its thread while its client sends it."""

    def __init__(self, bodies: BodyReader, exchange: Exchange) -> None:
        """Read nothing yet. Call it on the loop."""
        self._bodies, self._exchange = bodies, exchange
        self._loop = asyncio.get_running_loop()
        #: When the first part was asked for, later by the time in which the view did not read.
        self._began = self._loop.time()
        self._paused_at = self._began
        self._received, self._is_whole = 0, False

    def readable(self) -> bool:
        """True: it can only be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Returns the next `PART_BYTES` or a little more; fewer at the end, then none.

        Raises: UnsupportedEncoding. BodyTimeout: its client does not keep up. InvalidRequest: the body breaks off.
        """
        return asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()

    async def _next(self) -> bytes:
        if _is_packed(self._exchange.headers.get("Content-Encoding") or ""):
            raise UnsupportedEncoding("A file is not unpacked here. Send it as it is.")
        # What is done with a part is not its client's time.
        self._began += self._loop.time() - self._paused_at
        found = bytearray()
        while not self._is_whole and len(found) < PART_BYTES:
            part, self._is_whole = await self._bodies.next(
                self._exchange, self._exchange.length, self._received, self._began
            )
            self._received += len(part)
            found += part
        self._paused_at = self._loop.time()
        return bytes(found)


def _is_packed(encoding: str) -> bool:
    """Whether the body is a gzip. Raises: UnsupportedEncoding: it is packed in another way."""
    encoding = encoding.strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise UnsupportedEncoding(
            f"The Content-Encoding '{encoding[:40]}' is not read here. Send the body as it is, or with gzip."
        )
    return encoding.endswith("gzip")


def unpack(raw: bytes, limit: int, pieces: list[bytes]) -> None:
    """Unpack a gzip, up to one byte more than `limit`: that byte shows a body that is too large.

    Args: pieces: gets what is unpacked, also of a gzip that is broken, up to the piece in which it breaks.
    Raises: InvalidRequest: it is no gzip, or not a whole one.
    """
    unpacker, left = zlib.decompressobj(GZIP), limit + 1
    try:
        while left and not unpacker.eof:
            wanted = min(left, PIECE_BYTES)
            piece = unpacker.decompress(raw, wanted)
            raw = unpacker.unconsumed_tail
            pieces.append(piece)
            left -= len(piece)
            if len(piece) < wanted:
                break
    except zlib.error as error:
        raise InvalidRequest("The body is no gzip, as its Content-Encoding says.", code="invalid_encoding") from error
    if left and (not unpacker.eof or unpacker.unused_data):
        raise InvalidRequest("The body must be one whole gzip.", code="invalid_encoding")
