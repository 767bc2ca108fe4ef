"""granian's ASGI. A reply of one piece needs no loop either: its `send` does its work when it is called."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from bed.servers.mount import Mount, mount


class AsgiHeaders:
    """A request's headers."""

    __slots__ = ("_headers", "_pairs")

    def __init__(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs
        self._headers: dict[bytes, bytes] = dict(pairs)

    def get(self, name: str, /) -> str | None:
        """The value; several of one name as one."""
        key = name.lower().encode()
        if (value := self._headers.get(key)) is None:
            return None
        if len(self._headers) < len(self._pairs):
            value = b", ".join(text for other, text in self._pairs if other == key)
        return value.decode("latin-1")


class AsgiExchange:
    """One exchange."""

    __slots__ = ("_receive", "_send", "headers", "method", "path", "query")

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self._receive, self._send = receive, send
        self.method, self.headers = scope["method"], AsgiHeaders(scope["headers"])
        self.query = scope["query_string"].decode("latin-1")
        path = scope["path"]
        self.path = path if path.isascii() else path.encode().decode("latin-1")

    def first_piece(self) -> "asyncio.Future[Any]":
        """Read the first piece: most often, the whole of it."""
        return self._receive()  # type: ignore[no-any-return]

    def piece_of(self, outcome: Any) -> bytes:
        """The piece. Raises: ConnectionError: the client has left."""
        if outcome["type"] != "http.request":
            raise ConnectionError("The client has left.")
        piece: bytes = outcome.get("body", b"")
        return piece

    async def body(self, size: int | None) -> AsyncIterator[bytes]:
        """The body's pieces as they come."""
        received = 0
        while size is None or received < size:
            message = await self._receive()
            received += len(piece := self.piece_of(message))
            yield piece
            if not message.get("more_body"):
                return

    def respond(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send the whole reply. granian's `send` puts it on its way before it is awaited."""
        self._start(status, {"Content-Length": str(len(body)), **headers})
        self._send({"type": "http.response.body", "body": body})

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the head of a stream: granian does at once, as its type is that of events."""
        self._start(status, headers)

    def _start(self, status: int, headers: Mapping[str, str]) -> None:
        pairs = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()]
        self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def send(self, data: bytes) -> None:
        """Send a piece, as soon as at most three are on their way."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """End the stream."""
        await self._send({"type": "http.response.body", "body": b""})

    async def left(self) -> None:
        """Return once the client has closed its connection, or the reply has ended."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


class AsgiApp:
    """What granian calls."""

    def __init__(self, mount: Mount) -> None:
        self._mount = mount
        self._is_started = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if not self._is_started:
            self._is_started = True
            self._mount.start(asyncio.get_running_loop())
        await self._mount.answer(AsgiExchange(scope, receive, send))


def __getattr__(name: str) -> AsgiApp:
    """Make `app` when the server looks for it."""
    if name == "app":
        return AsgiApp(mount())
    raise AttributeError(name)
