"""Reads a request's body on the loop. Each has a deadline, and none a thread."""

import asyncio
from functools import partial

from api.bodies.in_flight import SMALL_BYTES, Bodies
from api.bodies.reader import MIN_RATE
from api.call import Call
from api.callers import calls_of
from api.handlers.submitting import idempotency_key
from api.mounts.body import _is_packed, unpacked
from bed.servers.exchange import Exchange
from bed.servers.loop import Threads
from headrace.errors import BodyTimeout, BodyTooLarge, InvalidRequest


class Body:
    """The body of one request, read on the loop: as by `api.mounts.body`, each with a deadline and without a thread."""

    def __init__(self, bodies: Bodies, limit: int, threads: Threads, exchange: Exchange, call: Call) -> None:
        """Read nothing yet. Args: limit: the largest body, in bytes."""
        self._bodies, self._limit, self._threads, self._exchange, self._call = bodies, limit, threads, exchange, call
        self._held: int | None = None

    async def read(self) -> bytes:
        """The whole body, unpacked. Raises: as `api.mounts.body.Body.read`."""
        headers, call = self._exchange.headers, self._call
        text = headers.get("Content-Length") or ""
        is_told = text.isascii() and text.isdigit() and headers.get("Transfer-Encoding") is None
        told = int(text) if is_told else None
        if told is not None and told > self._limit:
            raise self._too_large()
        encoding = headers.get("Content-Encoding")
        if encoding is not None and _is_packed(encoding):
            raw = await self._packed(told)
        else:
            raw = await self._plain(told)
        call.calls_due += calls_of(len(raw))
        if len(raw) > self._limit:
            raise self._too_large()
        return raw

    def release(self) -> None:
        """Stop counting the body."""
        if self._held is not None:
            self._bodies.release(self._call.app.id, self._held)
            self._held = None

    async def _plain(self, told: int | None) -> bytes:
        size = self._limit if told is None and self._exchange.headers.get("Transfer-Encoding") else told or 0
        if not size:
            return b""
        if size > SMALL_BYTES:
            await self._admit(size)
            return await self._in_time(told)
        with self._bodies.reading_small(self._call.app.id):
            return await self._in_time(told)

    async def _packed(self, told: int | None) -> bytes:
        await self._admit(self._limit)
        packed = await self._in_time(told)
        if len(packed) > self._limit:
            raise self._too_large()
        return await self._threads.run(partial(unpacked, packed, self._limit))

    async def _admit(self, size: int) -> None:
        await self._threads.run(partial(self._bodies.admit, self._call.app, size, idempotency_key(self._call)))
        self._held = size

    async def _in_time(self, told: int | None) -> bytes:
        """The body, or as much of it as shows that it is too long."""
        try:
            if told is None or told > SMALL_BYTES:
                return await self._by_pieces(told, [])
            first = await self._first(told)
            return first if len(first) == told else await self._by_pieces(told, [first])
        except (TimeoutError, asyncio.CancelledError):
            raise BodyTimeout(
                f"Less than {MIN_RATE // 1024} KiB/s of the body came. Nothing was accepted. "
                "Send fewer large requests at once, or shorter ones."
            ) from None
        except (ConnectionError, RuntimeError) as error:
            raise InvalidRequest("The body broke.", code="invalid_json") from error

    async def _first(self, told: int) -> bytes:
        """The first piece of a small body. Its deadline is cheaper than `asyncio.timeout`."""
        reading = self._exchange.first_piece()
        alarm = asyncio.get_running_loop().call_later(self._bodies.grace_s + told / MIN_RATE, reading.cancel)
        try:
            return self._exchange.piece_of(await reading)
        finally:
            alarm.cancel()

    async def _by_pieces(self, told: int | None, pieces: list[bytes]) -> bytes:
        began = asyncio.get_running_loop().time()
        received = sum(map(len, pieces))
        async with asyncio.timeout_at(began + self._bodies.grace_s) as deadline:
            async for piece in self._exchange.body(None if told is None else told - received):
                pieces.append(piece)
                received += len(piece)
                if received > self._limit:
                    break
                deadline.reschedule(began + self._bodies.grace_s + received / MIN_RATE)
        if told is not None and received < told:
            raise InvalidRequest(f"The body ends after {received} of {told} bytes.", code="invalid_json")
        return b"".join(pieces)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self._limit} bytes.")
