"""Answers early refusals before Flask sees the request, which would cost more than all else about them.

A WSGI middleware around the app. It takes only what is sure to be refused (`door.refusing.early_refusals`); everything
else, each error included, is left to the routes. Where pages of other origins may call, it is not installed.
"""

import time
from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING

from api.auth import check_scope
from api.bodies.in_flight import SMALL_BYTES
from api.deps import WebDeps
from api.errors.problems import body_of, told_of_refusal
from api.errors.shapes import shape_of
from api.metrics import Handled
from headrace.domain.apps import App
from headrace.domain.ids import new_id, show_id
from headrace.errors import HeadraceError, QueueFull

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PATH, METHOD = "/v1/jobs", "POST"
#: Requests with one of these are left to the routes: a body of unknown length, a packed one, and a replay, which needs
#: no place.
LEFT_ALONE = ("HTTP_TRANSFER_ENCODING", "HTTP_CONTENT_ENCODING", "HTTP_IDEMPOTENCY_KEY")


class _Slow(Exception):
    """The body may come slowly: only the routes read such a one."""


class EarlyDoor:
    """Refuses jobs whose queue was full a moment ago. While no queue was, it looks at nothing."""

    def __init__(self, app: "WSGIApplication", parts: WebDeps) -> None:
        self._app, self._parts = app, parts
        self._early = parts.submitter.refuser.early

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Refuse the request, or hand it on."""
        began = time.monotonic()
        if not self._early.is_empty and environ["PATH_INFO"] == PATH and environ["REQUEST_METHOD"] == METHOD:
            refused = self._refused(environ)
            if refused is not None:
                return self._answer(refused, began, start_response)
        return self._app(environ, start_response)

    def _refused(self, environ: "WSGIEnvironment") -> QueueFull | None:
        told = environ.get("CONTENT_LENGTH") or ""
        if not (told.isascii() and told.isdigit() and int(told) <= SMALL_BYTES):
            return None
        if any(name in environ for name in LEFT_ALONE):
            return None
        try:
            app = self._parts.authenticator.authenticate(environ.get("HTTP_AUTHORIZATION"))
            check_scope(app, METHOD)
            raw = self._read(app, environ, int(told))
        except (HeadraceError, _Slow):
            return None
        return self._early.check(app.id, raw)

    def _read(self, app: App, environ: "WSGIEnvironment", size: int) -> bytes:
        """Read a body that comes promptly; the routes can read it again. Raises: BodiesFull. _Slow."""
        with self._parts.bodies.reading_small(app.id) as needs_deadline:
            if needs_deadline:
                raise _Slow
            raw = environ["wsgi.input"].read(size)
        environ["wsgi.input"] = BytesIO(raw)
        return bytes(raw)

    def _answer(self, refused: QueueFull, began: float, start_response: "StartResponse") -> list[bytes]:
        shape = shape_of(refused)
        headers, more = told_of_refusal(refused)
        body = body_of(str(refused), shape.type, refused.code, refused.param, more)
        took_s = time.monotonic() - began
        named = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **headers,
            "x-request-id": show_id(new_id(), "req_"),
            "openai-processing-ms": str(round(took_s * 1000)),
            "Cache-Control": "no-store",
        }
        start_response(f"{shape.status} TOO MANY REQUESTS", list(named.items()))
        self._parts.metrics.note(Handled(METHOD, PATH, shape.status, "plain", refused.reason), took_s)
        return [body]
