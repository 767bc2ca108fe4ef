"""From a native exchange to its reply: the route, the caller, the body, the handler, and what holds it open.

Waits, streams and slow bodies are coroutines. Handlers run in a few threads, since tokenizers, scrypt, psycopg and
redis-py block. Flask gets every request that neither has a body nor may be held open.
"""

import asyncio
import logging
import re
import signal
import sys
import threading
import time
from functools import cache, partial
from io import BytesIO
from typing import Any

from werkzeug.wrappers import Response

import api.reading.waits
import api.streams.sse
from api import wsgi
from api.app import create_app
from api.auth import FRESH_SHARE, KEY_TTL_S
from api.call import Call, Reply, Wait
from api.deps import EXTENSION, WebDeps
from api.handlers import jobs, responses
from api.handlers.operation import Operation
from api.handlers.problems import problem
from api.mounts.flask_app import OPERATIONS
from api.mounts.serving import finished
from bed.servers.body import Body
from bed.servers.exchange import Exchange
from bed.servers.held import LoopStream, LoopWatch, Streaming, Waiting
from bed.servers.hot import Hot
from bed.servers.loop import Mailbox, Threads
from headrace import heap, startup
from headrace.errors import HeadraceError
from headrace.logging import configure
from headrace.store.clients import keys

log = logging.getLogger(__name__)

#: What `web` has today beside those that wait.
THREADS = 112
#: Headers that Flask's routes look at.
WSGI_HEADERS = (
    *("Authorization", "Host", "Accept", "Origin", "If-None-Match", "If-Modified-Since", "Range"),
    *("Access-Control-Request-Method", "Access-Control-Request-Headers", "X-Forwarded-For", "User-Agent"),
)
#: Operations without a body that may be held open.
HELD = (jobs.read, jobs.cancel, responses.retrieve, responses.cancel)


class Routes:
    """The operations that are not Flask's, by the paths of requests."""

    def __init__(self) -> None:
        native = [each for each in OPERATIONS if each.body is not None or each.handle in HELD]
        self._plain = {(each.method.upper(), each.path): each for each in native if "{" not in each.path}
        self._named = [
            (each.method.upper(), re.compile(re.sub(r"\{\w+\}", "([^/]+)", each.path)), each)
            for each in sorted(native, key=lambda each: each is not jobs.READ_JOB)
            if "{" in each.path
        ]

    def find(self, method: str, path: str) -> tuple[Operation, tuple[str, ...]] | None:
        """The operation, and the path's parameters."""
        if path.endswith("/"):
            path = path[:-1]
        if (found := self._plain.get((method, path))) is not None:
            return found, ()
        for wanted, pattern, operation in self._named:
            if method == wanted and (names := pattern.fullmatch(path)) is not None:
                return operation, names.groups()
        return None


class Mount:
    """The API on an event loop."""

    mailbox: Mailbox
    threads: Threads

    def __init__(self, app: Any) -> None:
        """Args: app: the Flask app."""
        self._flask = app
        self.web: WebDeps = app.extensions[EXTENSION]
        self._routes = Routes()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin, on the loop of the main thread."""
        self.mailbox = LoopWatch.mailbox = Mailbox(loop)
        self.threads = Threads(THREADS, self.mailbox)
        self._hot = Hot(self)
        # The loop learns of signals by its wakeup descriptor, so the server's handlers run as well. A thread closes the
        # waits: the signal may have come while the loop's own thread holds a lock.
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, lambda *_: threading.Thread(target=self.web.waits.close).start())

    async def answer(self, exchange: Exchange) -> None:
        """Answer one request."""
        method = "GET" if exchange.method == "HEAD" else exchange.method
        found = self._routes.find(method, exchange.path.encode("latin-1").decode(errors="replace"))
        if found is None:
            await self.threads.run(partial(self._by_flask, exchange))
            return
        operation, names = found
        call = Call(exchange.method, exchange.path, exchange.query, exchange.headers)
        held: Waiting | Streaming | None = None
        try:
            if operation.body is not None:
                held = await self._with_body(exchange, operation, call, names)
            elif operation is jobs.READ_JOB and not call.query and self._admit_now(operation, call):
                await self._hot.poll(exchange, call, *names)
            else:
                held = await self.threads.run(partial(self._handle, exchange, operation, call, names))
        except HeadraceError as error:
            self.send(exchange, operation.path, call, problem(error, call.id))
        if held is not None:
            await held.run()

    async def _with_body(
        self, exchange: Exchange, operation: Operation, call: Call, names: tuple[str, ...]
    ) -> Waiting | Streaming | None:
        """Admit the caller, read the body, and call the handler. Raises: HeadraceError: before the handler."""
        if not self._admit_now(operation, call):
            await self.threads.run(partial(self._admit, operation, call))
        body = Body(self.web.bodies, self.web.settings.body_limit_bytes, self.threads, exchange, call)
        try:
            call.body = await body.read()
            if operation is jobs.SUBMIT_JOB and self._hot.takes(call):
                await self._hot.submit(exchange, call)
                return None
            return await self.threads.run(partial(self._handle, exchange, operation, call, names))
        finally:
            body.release()

    def _admit_now(self, operation: Operation, call: Call) -> bool:
        """Admit a call whose app is known, without a look at Postgres. False: nothing was done."""
        if operation.is_open:
            return True
        if not is_known(self.web, call.headers.get("Authorization")):
            return False
        self._admit(operation, call)
        return True

    def _admit(self, operation: Operation, call: Call) -> None:
        submits = operation.makes_job
        call.caller = self.web.callers.admit(call.headers.get("Authorization"), call.method, submits=submits)
        call.calls_due = 1 if submits else 0

    def _handle(
        self, exchange: Exchange, operation: Operation, call: Call, names: tuple[str, ...]
    ) -> Waiting | Streaming | None:
        """Call the handler, in a thread. Returns what is left to do; None if the request is answered."""
        try:
            if call.caller is None and not operation.is_open:
                self._admit(operation, call)
            reply = operation.handle(self.web, call, *names)
            if isinstance(reply, Wait):
                call.body = b""
                waiting = Waiting(self, exchange, operation, call, reply)
                return None if waiting.begin() else waiting
        except Exception as error:
            reply = problem(error, call.id)
        if isinstance(reply.body, bytes):
            self.send(exchange, operation.path, call, reply)
            return None
        finished(self.web, operation.path, call, reply)
        return Streaming(self, exchange, reply)

    def send(self, exchange: Exchange, path: str, call: Call, reply: Reply) -> None:
        """Send a whole reply."""
        finished(self.web, path, call, reply)
        assert isinstance(reply.body, bytes)
        exchange.respond(reply.status, reply.headers, reply.body)
        self.close_all(reply)

    @staticmethod
    def close_all(reply: Reply) -> None:
        """Do what a reply leaves to be done."""
        for close in reply.on_close:
            try:
                close()
            except Exception:
                log.exception("close_failed")

    def _by_flask(self, exchange: Exchange) -> None:
        """Let Flask answer, in a thread."""
        response = Response.from_app(self._flask, _environ(exchange), buffered=True)
        exchange.respond(response.status_code, dict(response.headers), response.get_data())


def is_known(web: WebDeps, header: str | None) -> bool:
    """True if the header's app is in the cache, so that to admit it asks no server."""
    authenticator = web.callers.authenticator
    scheme, _, key = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not key.isascii():
        return False
    digest = keys.digest(key.strip(), authenticator._peppers[0])
    found = authenticator._good.get(digest)
    return found is not None and time.monotonic() - found[1] < KEY_TTL_S * FRESH_SHARE


def _environ(exchange: Exchange) -> dict[str, Any]:
    """The request as WSGI has it (PEP 3333), without its body: Flask's routes read none."""
    environ = {
        "REQUEST_METHOD": exchange.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": exchange.path,
        "QUERY_STRING": exchange.query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name in WSGI_HEADERS:
        if (value := exchange.headers.get(name)) is not None:
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    return environ


@cache
def mount() -> Mount:
    """The process's mount, made as `api.wsgi` makes its app."""
    api.reading.waits.Watch = LoopWatch  # type: ignore[misc]
    api.streams.sse.JobStream = LoopStream  # type: ignore[misc]
    sys.setswitchinterval(wsgi.SWITCH_S)
    configure()
    settings = startup.load()
    startup.check(settings)
    with startup.explained():
        app = create_app(settings)
    heap.settle(wsgi.GC_THRESHOLD)
    return Mount(app)
