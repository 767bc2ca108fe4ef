"""The entry point of the server: reads each request whole, and hands it to one of a few threads, which answers it.

Anyone may post to the login. A body that does not come holds a coroutine, for `BODY_S` at most: then the request is
answered and the server closes the connection.
"""

import asyncio
import ipaddress
import resource
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from flask import Flask
from werkzeug.wrappers import Response

from headrace import startup
from headrace.domain.fleet import ProcessKind
from headrace.errors import HeaderTooLarge
from headrace.heartbeat import Heartbeat
from headrace.http import PARSED_BYTES, Receive, Scope, Send, check_headers, environ_of
from headrace.logging import configure
from headrace.metrics import Endpoint
from ops.app import FORM_BYTES_MAX, create_app
from ops.deps import EXTENSION

#: Threads that answer requests, and whole requests that wait for one of them.
THREADS, WAITING = 32, 64
#: Seconds within which a body must have come.
BODY_S = 10.0
#: Bodies that come at once: at most 32 MiB.
BODIES = 512
RETRY_AFTER_S = 2
#: A browser sends a page the cookies of all ports of its host, and a proxy's own, which may have two of 4 KiB.
_PARSED_BYTES = {**PARSED_BYTES, b"cookie": 8192}
#: New objects after which Python looks for garbage in cycles; its default is 700. A request makes few cycles.
GC_THRESHOLD = 20_000


class _Refusal(Exception):
    """A request that is not handed to a thread. Attributes: reason: the bound that was met; None without one."""

    def __init__(self, status: int, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class OpsServer:
    """The ASGI app around the pages. All but the pages runs on the server's event loop."""

    def __init__(self, app: Flask, proxies: Sequence[str]) -> None:
        """Args: proxies: networks whose `X-Forwarded-For` is believed."""
        self._proxies = [ipaddress.ip_network(proxy) for proxy in proxies]
        self._app, self._metrics = app, app.extensions[EXTENSION].metrics
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="page")
        self._answering = 0
        #: The deadlines of bodies that come, the oldest first.
        self._coming: dict[asyncio.Timeout, None] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = time.monotonic()
        try:
            _check_headers(scope)
            address = self._client(scope)
            response = await self._answer(environ_of(scope, address, await self._body(scope, receive)))
        except _Refusal as refusal:
            self._metrics.note(scope["method"], None, refusal.status, time.monotonic() - began)
            self._metrics.note_refusal(refusal.reason)
            response = _refused(refusal)
        await send(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": [
                    (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers
                ],
            }
        )
        await send({"type": "http.response.body", "body": response.get_data()})

    def _client(self, scope: Scope) -> str:
        """The client's address: the last one that no trusted proxy has."""
        forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
        hops = [hop.strip() for hop in forwarded.split(",") if hop.strip()]
        address: str = (scope.get("client") or [""])[0]
        while hops and _is_within(address, self._proxies):
            address = hops.pop()
        return address

    async def _answer(self, environ: dict[str, Any]) -> Response:
        """The app's answer, from a thread. Raises: _Refusal."""
        if self._answering >= THREADS + WAITING:
            raise _Refusal(503, "Too many requests are under way.", "threads")
        self._answering += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, Response.from_app, self._app, environ, True)
        finally:
            self._answering -= 1

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body. Raises: _Refusal."""
        lengths = [value for name, value in scope["headers"] if name in (b"content-length", b"transfer-encoding")]
        if lengths in ([], [b"0"]):
            return b""
        if lengths[0].isdigit() and int(lengths[0]) > FORM_BYTES_MAX:
            raise _too_large()
        try:
            async with asyncio.timeout(BODY_S) as deadline:
                self._make_room()
                self._coming[deadline] = None
                try:
                    return await _read(receive)
                finally:
                    self._coming.pop(deadline, None)
        except TimeoutError:
            raise _Refusal(408, "The body did not come in time.", "late_bodies") from None

    def _make_room(self) -> None:
        """Where as many bodies come as may, give up the one that has come for the longest time.

        A form comes within milliseconds, so a flood of bodies that do not come gives way to it.
        """
        if len(self._coming) >= BODIES:
            oldest = next(iter(self._coming))
            del self._coming[oldest]
            if not oldest.expired():
                oldest.reschedule(asyncio.get_running_loop().time())


def _check_headers(scope: Scope) -> None:
    try:
        check_headers(scope["headers"], _PARSED_BYTES)
    except HeaderTooLarge as error:
        raise _Refusal(431, str(error)) from error


async def _read(receive: Receive) -> bytes:
    """Read a body. Raises: _Refusal."""
    body = bytearray()
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if len(body) > FORM_BYTES_MAX:
            raise _too_large()
        if not message.get("more_body"):
            return bytes(body)
    raise _Refusal(400, "The client has left.")


def _is_within(address: str, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        return any(ipaddress.ip_address(address) in network for network in networks)
    except ValueError:
        return False


def _too_large() -> _Refusal:
    return _Refusal(413, f"The body is larger than {FORM_BYTES_MAX} bytes.", "large_bodies")


def _refused(refusal: _Refusal) -> Response:
    """The answer; the rest of the body is not read, so the connection cannot carry another request."""
    response = Response(f"{refusal}\n", refusal.status)
    response.headers["Connection"] = "close"
    if refusal.status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


@cache
def _app() -> OpsServer:
    """The app, made after its servers passed their checks. It keeps to no CPU: a page now and then needs none.

    It may open as many files as the system admits. The usual limit is 1,024, fewer than the connections that it takes.
    """
    configure()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    settings = startup.load()
    startup.check(settings)
    with startup.explained():
        app = create_app(settings)
        Endpoint([app.extensions[EXTENSION].metrics], settings.metrics_host, settings.metrics_port).start()
    Heartbeat(ProcessKind.OPS, settings).start()
    startup.settle_heap(GC_THRESHOLD)
    return OpsServer(app, settings.ops.proxies)


def __getattr__(name: str) -> OpsServer:
    """Make `app` when the server looks for it, so that an import alone makes nothing."""
    if name == "app":
        return _app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
