"""The fast path: hot operations reach their handlers without Flask, which would cost more than all else about them."""

import http
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.wsgi import ClosingIterator

from api.call import Reply
from api.deps import WebDeps
from api.handlers import jobs
from api.mounts.serving import serve

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: The usual spelling of a polled path. Flask knows all others.
_POLL = re.compile("/v1/jobs/(job_[0-9a-f]{32})")
_STATUS_LINES = {status.value: f"{status.value} {status.phrase.upper()}" for status in http.HTTPStatus}


class FastPath:
    """Answers submits and polls of `/v1/jobs`; hands all other requests to the app."""

    def __init__(self, app: "WSGIApplication", web: WebDeps) -> None:
        self._app, self._web = app, web

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer one request."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if method == "POST" and path == jobs.SUBMIT_JOB.path:
            return _send(serve(self._web, jobs.SUBMIT_JOB, environ), start_response)
        if method == "GET" and (polled := _POLL.fullmatch(path)) is not None:
            return _send(serve(self._web, jobs.READ_JOB, environ, polled[1]), start_response)
        return self._app(environ, start_response)


def _send(reply: Reply, start_response: "StartResponse") -> Iterable[bytes]:
    body = reply.body if isinstance(reply.body, bytes) else b"".join(reply.body)
    reply.headers["Content-Length"] = str(len(body))
    start_response(_STATUS_LINES[reply.status], list(reply.headers.items()))
    return ClosingIterator([body], reply.on_close) if reply.on_close else [body]
