"""Requests before Flask: who calls, and an answer as a route would send it: with the headers of all, and counted."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from api.calls import Callers
from api.deps import FAILED, Failed
from api.errors.problems import body_of, told_of_refusal
from api.metrics import WebMetrics
from headrace.domain.apps import App
from headrace.domain.ids import new_id, show_id
from headrace.errors import AppLimited, Refused
from headrace.http.request_metrics import Handled, RequestKind
from headrace.http.shapes import shape_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Request(NamedTuple):
    """One request that may be answered here.

    Attributes:
        id: for the log, and for the caller.
        began: on the monotonic clock.
    """

    environ: "WSGIEnvironment"
    start_response: "StartResponse"
    id: str
    began: float

    @classmethod
    def of(cls, environ: "WSGIEnvironment", start_response: "StartResponse") -> "Request":
        """The request that begins now."""
        return cls(environ, start_response, show_id(new_id(), "req_"), time.monotonic())


class Reply(NamedTuple):
    """An answer to send.

    Attributes:
        status: with its words, such as '200 OK'.
        headers: besides those that every answer has.
        rule: the route's template, as Flask has it.
        refusal: the bound that was met, if the request was refused.
    """

    status: str
    headers: Mapping[str, str]
    body: bytes
    rule: str
    kind: RequestKind = "plain"
    refusal: str | None = None


def caller_of(request: Request, callers: Callers, *, submits: bool = False) -> App | None:
    """The app that calls; None if the route must refuse the request. Raises: AppLimited."""
    environ = request.environ
    try:
        return callers.admit(environ.get("HTTP_AUTHORIZATION"), environ["REQUEST_METHOD"], submits=submits)
    except AppLimited:
        raise
    except Exception as error:
        hand_on(request, error)
        return None


def refusal(refused: Refused, rule: str) -> Reply:
    """The answer to a refused request."""
    shape = shape_of(refused)
    headers, more = told_of_refusal(refused)
    body = body_of(str(refused), shape.type, refused.code, refused.param, more)
    return Reply(f"{shape.status} TOO MANY REQUESTS", headers, body, rule, refusal=refused.reason)


def hand_on(request: Request, error: Exception, *, waits: bool = False) -> None:
    """Let the route answer with this error, without trying again. Args: waits: whether the request has waited."""
    request.environ[FAILED] = Failed(error, request.began, request.id, waits)


def send(request: Request, reply: Reply, metrics: WebMetrics) -> list[bytes]:
    """Begin the answer, and count the request. Returns the body."""
    took_s = time.monotonic() - request.began
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(reply.body)),
        **reply.headers,
        "x-request-id": request.id,
        "openai-processing-ms": str(round(took_s * 1000)),
        "Cache-Control": "no-store",
    }
    request.start_response(reply.status, list(headers.items()))
    method, status = request.environ["REQUEST_METHOD"], int(reply.status[:3])
    metrics.note(Handled(method, reply.rule, status, reply.kind, reply.refusal), took_s)
    return [reply.body]
