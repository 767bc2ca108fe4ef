"""Answers polls: `GET /v1/jobs/job_…`, with or without `?wait=`. Apps ask nothing as often."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from api.deps import WebDeps, json_of
from api.early.sending import Reply, Request, caller_of, hand_on, refusal, send
from api.reading.peers import peer_of
from api.routes.submission import headers_of_job
from api.schemas.jobs import JobBody
from headrace.domain.apps import App
from headrace.domain.ids import parse_id, show_id
from headrace.errors import AppLimited

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

RULE, METHOD = "/v1/jobs/<public_id>", "GET"
#: The usual spellings of the path and of the query. Others are left to the routes.
_PATH = re.compile("/v1/jobs/(job_[0-9a-f]{32})")
_WAIT = re.compile("wait=([0-9]{1,6}([.][0-9]{1,6})?)")


class _Poll(NamedTuple):
    """What is asked for."""

    app: App
    job_id: UUID
    wait_s: float


class EarlyPolls:
    """Answers polls of jobs as `api.routes.jobs.read` would."""

    def __init__(self, app: "WSGIApplication", parts: WebDeps) -> None:
        self._app, self._parts = app, parts

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer the request, or hand it on."""
        if environ["REQUEST_METHOD"] == METHOD and (path := _PATH.fullmatch(environ["PATH_INFO"])) is not None:
            request = Request.of(environ, start_response)
            try:
                poll = self._poll(path[1], request)
            except AppLimited as refused:
                return send(request, refusal(refused, RULE), self._parts.metrics)
            if poll is not None and (reply := self._reply(poll, request)) is not None:
                return send(request, reply, self._parts.metrics)
        return self._app(environ, start_response)

    def _poll(self, public_id: str, request: Request) -> _Poll | None:
        """What is asked for; None if only the routes can tell. Raises: AppLimited."""
        environ = request.environ
        told = environ.get("QUERY_STRING", "")
        wait = _WAIT.fullmatch(told)
        has_body = environ.get("CONTENT_LENGTH") not in (None, "", "0") or "HTTP_TRANSFER_ENCODING" in environ
        if (told and wait is None) or has_body:
            return None
        wait_s = float(wait[1]) if wait is not None else 0.0
        if wait_s > self._parts.settings.wait_limit_s:
            return None
        app = caller_of(request, self._parts.callers)
        return None if app is None else _Poll(app, parse_id(public_id), wait_s)

    def _reply(self, poll: _Poll, request: Request) -> Reply | None:
        """The job, once it has ended or the wait is over. None: the route says what went wrong, without a wait."""
        app_id, job_id, waits = poll.app.id, poll.job_id, poll.wait_s > 0
        try:
            read, peer = self._parts.reader.read, peer_of(request.environ)
            job = self._parts.waits.until_ended(app_id, job_id, lambda: read(app_id, job_id), poll.wait_s, peer)
            headers = {"x-job-id": show_id(job.id), **headers_of_job(job)}
            return Reply("200 OK", headers, json_of(JobBody.of(job)).encode(), RULE, "wait" if waits else "plain")
        except Exception as error:
            hand_on(request, error, waits=waits)
            return None
