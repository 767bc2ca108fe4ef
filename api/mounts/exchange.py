"""One HTTP exchange as ASGI has it: a request comes in by its parts, and a reply goes out."""

from collections.abc import Mapping, Sequence

from headrace.http.asgi import Receive, Scope, Send


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


class Exchange:
    """One exchange. Attributes: path: as WSGI has it: the decoded bytes as latin-1. receive: the body's next part."""

    __slots__ = ("_send", "headers", "method", "path", "query", "receive")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.receive, self._send = receive, send
        self.method: str = scope["method"]
        self.headers = RequestHeaders(scope["headers"])
        self.query: str = scope["query_string"].decode("latin-1")
        path: str = scope["path"]
        self.path = path if path.isascii() else path.encode().decode("latin-1")

    async def respond(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a whole reply."""
        await self.begin(status, {"Content-Length": str(len(body)), **headers})
        await self._send({"type": "http.response.body", "body": body})

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the head of a reply."""
        pairs = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def send(self, data: bytes) -> None:
        """Send a part of the body; waits while a few are on their way."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """End the body."""
        await self._send({"type": "http.response.body", "body": b""})

    async def left(self) -> None:
        """Return once the client has closed its connection. The body must have been read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
