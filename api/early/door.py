"""Answers submits: what is sure to be refused (`door.refusals`), and plain jobs (`api.plain`)."""

from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING

from api.bodies.in_flight import SMALL_BYTES
from api.calls import calls_of
from api.deps import WebDeps
from api.early.sending import Reply, Request, caller_of, hand_on, refusal, send
from api.plain import PLAIN_BYTES, PlainJobs, Post
from headrace.domain.apps import App
from headrace.errors import AppLimited, HeadraceError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PATH, METHOD = "/v1/jobs", "POST"
#: Requests with one of these are left to the routes: a body of unknown length, a packed one, and a replay, which needs
#: no place.
LEFT_ALONE = ("HTTP_TRANSFER_ENCODING", "HTTP_CONTENT_ENCODING", "HTTP_IDEMPOTENCY_KEY")


class _Slow(Exception):
    """The body may come slowly: only the routes read such a one."""


class EarlyDoor:
    """Refuses jobs whose queue was full a moment ago, and accepts plain jobs."""

    def __init__(self, app: "WSGIApplication", parts: WebDeps, plain: PlainJobs) -> None:
        self._app, self._parts, self._plain = app, parts, plain
        self._refusals = parts.submitter.refusals

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer the request, or hand it on."""
        if environ["PATH_INFO"] == PATH and environ["REQUEST_METHOD"] == METHOD:
            request = Request.of(environ, start_response)
            try:
                post = self._post(request)
            except AppLimited as refused:
                return send(request, refusal(refused, PATH), self._parts.metrics)
            if post is not None and (reply := self._reply(request, post)) is not None:
                return send(request, reply, self._parts.metrics)
        return self._app(environ, start_response)

    def _post(self, request: Request) -> Post | None:
        """What is posted; None if only the routes can tell. They can read the body again. Raises: AppLimited."""
        environ = request.environ
        told, limit = environ.get("CONTENT_LENGTH") or "", SMALL_BYTES if self._refusals.refuses_early else PLAIN_BYTES
        if not (told.isascii() and told.isdigit() and int(told) <= limit):
            return None
        if any(name in environ for name in LEFT_ALONE):
            return None
        if (app := caller_of(request, self._parts.callers, submits=True)) is None:
            return None
        try:
            raw = self._read(app, environ, int(told))
        except (HeadraceError, _Slow):
            return None
        return Post(app, raw, request.id)

    def _read(self, app: App, environ: "WSGIEnvironment", size: int) -> bytes:
        """Read a body that comes promptly. Raises: BodiesFull. _Slow."""
        with self._parts.bodies.reading_small(app.id) as needs_deadline:
            if needs_deadline:
                raise _Slow
            raw = environ["wsgi.input"].read(size)
        environ["wsgi.input"] = BytesIO(raw)
        return bytes(raw)

    def _reply(self, request: Request, post: Post) -> Reply | None:
        """Refuse or accept the job; None if it is handed on."""
        if self._refusals.refuses_early and (refused := self._refusals.early(post.app.id, post.raw)) is not None:
            self._parts.callers.rates.charge(post.app, 1 + calls_of(len(post.raw)))
            return refusal(refused, PATH)
        try:
            accepted = self._plain.submit(post)
        except Exception as error:
            # The job may exist. So the route says what went wrong, and does not submit it again.
            hand_on(request, error)
            return None
        return None if accepted is None else Reply("202 ACCEPTED", accepted.headers, accepted.body, PATH)
