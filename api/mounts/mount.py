"""The API on an event loop: routes, the ways of a call to its reply, and requests that are held open.

The loop reads bodies and sends replies. Handlers run in a few threads, since tokenizers, scrypt, psycopg and redis-py
block. A wait and a stream hold a thread only while there is news of them. Calls that have no body and never wait are
Flask's, but for those that ask no server: the loop answers them.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Generator
from functools import partial
from typing import TypeVar

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from api.call import Asked, Call, ClientGone, Operation, Reply, Step, Upload, Wait, Wake
from api.deps import WebDeps
from api.handlers import jobs
from api.handlers.replies import finished, problem
from api.mounts.exchange import BodyReader, Exchange
from api.mounts.flask_app import OPERATIONS, WebApp
from api.mounts.loop import Mailbox, Threads
from headrace.domain.apps import App
from headrace.domain.jobs import Job
from headrace.errors import HeaderTooLarge, StoreUnavailable
from headrace.http import Receive, Scope, Send, check_headers, environ_of

log = logging.getLogger(__name__)

#: Threads that run handlers and Flask, and the steps of waits and streams.
THREADS = 112
#: Threads for batches of jobs and of polls: one of each at a time, and what they bring. They are apart, since all other
#: threads may be waiting for the outcome of a batch that has not begun.
BATCH_THREADS = 16
#: The usual spelling of a polled path. Flask's routes know the others.
_POLL = re.compile("/v1/jobs/(job_[0-9a-f]{32})")

Value = TypeVar("Value")
Steps = Generator[Step, None, Value]


class Mount:
    """An ASGI app. Attributes: web: the parts of the process. flask: answers what is not answered here."""

    _mailbox: Mailbox
    _threads: Threads
    _batches: Threads
    _bodies: BodyReader

    def __init__(self, web: WebDeps, flask: WebApp, begin: Callable[[], object]) -> None:
        """Args: begin: called at the first request, on the event loop."""
        self.web, self.flask, self._begin = web, flask, begin
        self._urls = flask.url_map.bind("")
        #: By their Authorization headers, the callers for whom Postgres is being asked.
        self._asking: dict[str | None, asyncio.Future[App]] = {}
        self._has_begun = False

    def close(self) -> None:
        """Stop the threads and close the connections."""
        if self._has_begun:
            self._threads.close()
            self._batches.close()
        self.web.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if not self._has_begun:
            self._has_begun = True
            self._mailbox = Mailbox(asyncio.get_running_loop())
            self._threads, self._batches = Threads(THREADS, self._mailbox), Threads(BATCH_THREADS, self._mailbox)
            self._bodies = BodyReader(self.web.bodies, self.web.settings.body_limit_bytes, self._threads)
            self._begin()
        exchange = Exchange(scope, receive, send, self.web.bodies.grace_s)
        try:
            check_headers(scope["headers"])
        except HeaderTooLarge as error:
            await self._refuse(exchange, error)
            return
        operation, names = self._find(exchange.method, exchange.path)
        if operation is None:
            environ = environ_of(scope, (scope.get("client") or [""])[0])
            line = self.web.callers.authenticator.last_known(exchange.headers.get("Authorization"))
            response = await self._threads.run(partial(Response.from_app, self.flask, environ, True), line)
            await exchange.respond(response.status_code, dict(response.headers), response.get_data())
            return
        call = Call(exchange.method, exchange.path, exchange.query, exchange.headers)
        reply = finished(self.web, operation.path, call, await self._reply(exchange, operation, call, names))
        try:
            if isinstance(reply.body, bytes):
                await exchange.respond(reply.status, reply.headers, reply.body)
            else:
                if not reply.is_download:
                    exchange.lag_s = None
                await exchange.respond(reply.status, reply.headers, None)
                await self._follow(exchange, reply.body, call)
                await exchange.end()
        finally:
            if reply.on_close:
                await self._threads.run(partial(_close, reply), call.app.id)

    async def _refuse(self, exchange: Exchange, error: HeaderTooLarge) -> None:
        call = Call(exchange.method, exchange.path, exchange.query, exchange.headers)
        reply = finished(self.web, None, call, problem(error, call.id))
        assert isinstance(reply.body, bytes)
        await exchange.respond(reply.status, reply.headers, reply.body)

    def _find(self, method: str, path: str) -> tuple[Operation | None, tuple[str, ...]]:
        """The operation that is answered here, and its path's parameters; None: Flask answers."""
        if method == "POST" and path == jobs.SUBMIT_JOB.path:
            return jobs.SUBMIT_JOB, ()
        if method == "GET" and (polled := _POLL.fullmatch(path)) is not None:
            return jobs.READ_JOB, (polled[1],)
        try:
            endpoint, names = self._urls.match(path.encode("latin-1").decode(errors="replace"), method)
        except HTTPException:
            return None, ()
        operation = OPERATIONS.get(endpoint)
        if operation is None or method == "OPTIONS":
            return None, ()
        has_body = operation.body is not None or operation.form is not None
        is_ours = has_body or operation.may_wait or operation.is_instant
        return (operation, tuple(names.values())) if is_ours else (None, ())

    async def _reply(self, exchange: Exchange, operation: Operation, call: Call, names: tuple[str, ...]) -> Reply:
        """The reply to a call, or to what is wrong with it."""
        web = self.web
        try:
            if operation.is_instant:
                answered = operation.handle(web, call)
                assert isinstance(answered, Reply), "It asks no server, so it has nothing to wait for."
                return answered
            app = await self._caller(exchange.headers.get("Authorization"))
            web.callers.admit(call, app, submits=operation.makes_job)
            if operation.body is not None:
                call.body = await self._bodies.read(exchange, call)
            reply: Reply | Wait | Upload | Asked | None = operation.soon and operation.soon(web, call, *names)
            if isinstance(reply, Asked):
                reply = await self._asked(reply, call.app)
            if reply is None:
                reply = await self._threads.run(partial(operation.handle, web, call, *names), call.app.id)
            if isinstance(reply, Upload):
                reply = await self._bodies.upload(exchange, call, reply)
            if isinstance(reply, Wait):
                # A wait takes minutes. The body is not needed any more.
                call.body = b""
                self._bodies.release(call)
                reply = await self._follow(exchange, partial(self._waited, reply), call)
            return reply
        except Exception as error:
            return problem(error, call.id)
        finally:
            self._bodies.release(call)

    async def _caller(self, header: str | None) -> App:
        """The app behind an Authorization header. Calls that come while Postgres is asked for theirs share its answer.

        Raises: Unauthenticated. StoreUnavailable.
        """
        authenticator = self.web.callers.authenticator
        if (app := authenticator.recall(header)) is not None:
            return app
        if (asked := self._asking.get(header)) is None:
            ask = partial(authenticator.authenticate, header)
            asked = self._asking[header] = self._threads.run(ask, authenticator.last_known(header))
            asked.add_done_callback(lambda _: self._asking.pop(header))
        return await asyncio.shield(asked)

    async def _asked(self, asked: Asked, app: App) -> Reply | None:
        """The reply that a batch brings. The thread that has served the batch makes it."""
        reply: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()

        def tell(outcome: object) -> None:
            settle = partial(self._threads.settle, reply, partial(asked.reply, outcome))
            # What is still to be made would keep the others of its batch waiting.
            self._threads.start(settle, app.id) if isinstance(outcome, partial) else settle()

        asked.batching.post(asked.ask, tell, self._batches.start)
        return await reply

    def _waited(self, wait: Wait, wake: Wake) -> Steps[Reply]:
        found: Job | Exception
        try:
            found = yield from self.web.waits.follow(wait.job_id, wait.read, wait.for_s, wake)
        except StoreUnavailable as error:
            found = error
        finally:
            # Before the reply, which may cancel the job: once that is seen, the slot is free.
            wait.slot.release()
        return wait.reply(found)

    async def _follow(self, exchange: Exchange, steps_of: Callable[[Wake], Steps[Value]], call: Call) -> Value:
        """Take the steps of a request that is held open, as there is news, or once its client has left."""
        news = asyncio.Event()
        steps = steps_of(partial(self._mailbox.post, news.set))
        leaving = asyncio.get_running_loop().create_task(exchange.left())
        leaving.add_done_callback(lambda _: news.set())
        try:
            while True:
                news.clear()
                step = await self._threads.run(partial(_next, steps, leaving.done() or exchange.is_cut), call.app.id)
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
    """The next step; at the end its value, in a tuple."""
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


def _close(reply: Reply) -> None:
    """Do what a reply leaves to be done."""
    for close in reply.on_close:
        try:
            close()
        except Exception:
            log.exception("close_failed")
