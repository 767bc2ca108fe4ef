"""granian's RSGI. A reply needs no loop; a stream has no back-pressure; headers that are not ASCII are not seen."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from bed.servers.mount import Mount, mount


class RsgiExchange:
    """One exchange."""

    __slots__ = ("_proto", "_stream", "headers", "method", "path", "query")

    def __init__(self, scope: Any, proto: Any) -> None:
        self._proto, self._stream = proto, None
        self.method, self.query, self.headers = scope.method, scope.query_string, scope.headers
        path = scope.path
        self.path = path if path.isascii() else path.encode().decode("latin-1")

    def first_piece(self) -> "asyncio.Future[Any]":
        """Read the whole body."""
        return self._proto()  # type: ignore[no-any-return]

    def piece_of(self, outcome: bytes) -> bytes:
        """The whole body."""
        return outcome

    async def body(self, size: int | None) -> AsyncIterator[bytes]:
        """The body's pieces as they come. One that breaks ends early, without an error."""
        async for piece in self._proto:
            if not piece:
                return
            yield piece

    def respond(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send the whole reply."""
        pairs = list(headers.items())
        if "Content-Length" not in headers:
            pairs.append(("Content-Length", str(len(body))))
        self._proto.response_bytes(status, pairs, body)

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the head of a stream."""
        self._stream = self._proto.response_stream(status, list(headers.items()))

    async def send(self, data: bytes) -> None:
        """Send a piece. Returns at once: what a slow reader leaves is kept in memory."""
        await self._stream.send_bytes(data)

    async def end(self) -> None:
        """End the stream: granian does once nothing refers to it."""
        self._stream = None

    async def left(self) -> None:
        """Return once the client has closed its connection. Cancel it: else it takes the next request's notice."""
        await self._proto.client_disconnect()


class RsgiApp:
    """What granian calls."""

    def __init__(self, mount: Mount) -> None:
        self._mount = mount

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._mount.start(loop)

    async def __rsgi__(self, scope: Any, proto: Any) -> None:
        await self._mount.answer(RsgiExchange(scope, proto))


def __getattr__(name: str) -> RsgiApp:
    """Make `app` when the server looks for it."""
    if name == "app":
        return RsgiApp(mount())
    raise AttributeError(name)
