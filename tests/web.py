"""The API without a server: its ASGI app on an event loop of the tests, for werkzeug's client and server."""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import cache
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import werkzeug.test
from granian.constants import Interfaces
from granian.server.embed import Server
from werkzeug.routing import Map
from werkzeug.test import Client, TestResponse

from api.app import WebServer, create_app
from api.deps import WebDeps
from headrace.config import Settings
from headrace.http import Message, Receive, Scope, Send
from headrace.stack.ports import free_port
from tests.waiting import until

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


#: As many as the Procfile allows.
CONNECTIONS = 4096


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="asgi", daemon=True).start()
    return loop


class Web:
    """An API. As WSGI, it takes a request to the ASGI app as a server would, and closes as a client that leaves."""

    def __init__(self, server: WebServer) -> None:
        self.server = server
        _loop()  # Before the first requests, which may come from several threads at once, and would make one each.
        #: The method and path of each request, in order.
        self.seen: list[str] = []

    @classmethod
    def of(cls, settings: Settings) -> "Web":
        """The API with these settings."""
        return cls(create_app(settings))

    @property
    def deps(self) -> WebDeps:
        """The parts of the process."""
        return self.server.web

    @property
    def url_map(self) -> Map:
        """Every route."""
        return self.server.flask.url_map

    def test_client(self) -> "ApiClient":
        """A client without a key."""
        return ApiClient(self)

    def close(self) -> None:
        """Stop the threads and close the connections."""
        self.server.close()

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        self.seen.append(f"{scope['method']} {scope['path']}")
        await self.server(scope, receive, send)

    @contextmanager
    def served(self) -> Iterator[str]:
        """Serve on loopback by the server that production runs. Yields: the address."""
        port = free_port()
        most = {"backlog": CONNECTIONS, "backpressure": CONNECTIONS}
        server = Server(self.asgi, port=port, interface=Interfaces.ASGINL, websockets=False, log_enabled=False, **most)
        serving = asyncio.run_coroutine_threadsafe(server.serve(), _loop())
        url = f"http://127.0.0.1:{port}"
        try:
            until(lambda: _is_up(port))
            yield url
        finally:
            _loop().call_soon_threadsafe(server.stop)
            serving.result(10)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterator[bytes]:
        """Answer one request."""
        exchange = _Exchange(environ)
        exchange.run(self.asgi)
        head = exchange.next()
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head["headers"]]
        start_response(f"{head['status']} {head['status']}", headers)
        return _Body(exchange)


def _is_up(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


class _Exchange:
    """One request on its way through the app."""

    def __init__(self, environ: "WSGIEnvironment") -> None:
        self._stream, self.is_head = environ["wsgi.input"], environ["REQUEST_METHOD"] == "HEAD"
        length = environ.get("CONTENT_LENGTH") or ""
        self._size = int(length) if length.isdigit() else -1 if environ.get("wsgi.input_terminated") else 0
        self._messages: SimpleQueue[Message | BaseException | None] = SimpleQueue()
        self._is_read = False
        self._left = asyncio.Event()
        headers = [(name[5:], value) for name, value in environ.items() if name.startswith("HTTP_")]
        headers += [(name, environ[name]) for name in ("CONTENT_TYPE", "CONTENT_LENGTH") if environ.get(name)]
        self._scope = {
            "type": "http",
            "http_version": "1.1",
            "scheme": "http",
            "method": environ["REQUEST_METHOD"],
            "path": environ["PATH_INFO"].encode("latin-1").decode(errors="replace"),
            "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
            "headers": [
                (name.lower().replace("_", "-").encode(), str(value).encode("latin-1")) for name, value in headers
            ],
            "server": ("localhost", 80),
            "client": ("127.0.0.1", 1),
        }

    def run(self, app: Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]) -> None:
        """Begin."""
        answering = asyncio.run_coroutine_threadsafe(app(self._scope, self._receive, self._send), _loop())
        answering.add_done_callback(self._end)

    def next(self) -> Any:
        """The next message; None after the last. Raises: what the app raises."""
        message = self._messages.get()
        if isinstance(message, BaseException):
            raise message
        return message

    def leave(self) -> None:
        """Close the connection."""
        _loop().call_soon_threadsafe(self._left.set)

    def _end(self, done: "Future[None]") -> None:
        self._messages.put(done.exception())

    async def _receive(self) -> Message:
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": await asyncio.to_thread(self._stream.read, self._size)}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self._messages.put(message)


class _Body(Iterator[bytes]):
    """The parts of a reply's body. It ends with the request."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange, self._is_over = exchange, False

    def __next__(self) -> bytes:
        message = None if self._is_over else self._exchange.next()
        if message is None:
            self._is_over = True
            raise StopIteration
        body: bytes = message["body"]
        # As every server does.
        return b"" if self._exchange.is_head else body

    def close(self) -> None:
        """Leave, and see the request end."""
        self._exchange.leave()
        for _ in self:
            pass


# Werkzeug's own boundaries have up to 75 characters, one in 400 of them more than the 70 of RFC 2046.
werkzeug.test.random = lambda: 0.5  # type: ignore[attr-defined]


class ApiClient(Client):
    """A client of an API. Attributes: key: sent with every request, unless that has another. web: the API."""

    def __init__(self, web: Web, key: str | None = None) -> None:
        super().__init__(web, use_cookies=False)
        self.web, self.key = web, key

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        """Make one request."""
        if self.key is not None:
            base = kwargs.setdefault("environ_base", {})
            base.setdefault("HTTP_AUTHORIZATION", f"Bearer {self.key}")
        return super().open(*args, **kwargs)
