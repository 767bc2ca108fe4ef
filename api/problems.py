"""Errors as HTTP answers, in OpenAI's shape. The one place that knows a status per error."""

import http
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from flask import Flask, Response, g, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from api.deps import deps
from api.rates import rate_headers
from headrace import errors
from headrace.domain.ids import show_id
from headrace.domain.rates import RatesLeft
from headrace.errors import HeadraceError, Refused

log = logging.getLogger(__name__)
_encode = json.JSONEncoder(separators=(",", ":")).encode

#: Seconds after which a server that was down is worth another try.
RETRY_AFTER_S = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """How one class of errors is answered, and with which headers."""

    status: int
    type: str
    headers: Mapping[str, str] = field(default_factory=dict)


#: The class of an error, or the nearest one above it, decides. The openai SDK retries 408, 409, 429 and 5xx by itself.
SHAPES: Mapping[type[HeadraceError], Shape] = {
    errors.InvalidRequest: Shape(400, "invalid_request_error"),
    errors.ModelNotFound: Shape(404, "invalid_request_error"),
    errors.IdempotencyKeyReused: Shape(422, "idempotency_error"),
    errors.IdempotencyInProgress: Shape(409, "idempotency_error", {"Retry-After": "1"}),
    errors.Unauthenticated: Shape(401, "invalid_request_error", {"WWW-Authenticate": "Bearer"}),
    errors.PermissionDenied: Shape(403, "permission_error"),
    errors.NotFound: Shape(404, "invalid_request_error"),
    errors.JobNotEnded: Shape(409, "conflict_error", {"Retry-After": "1"}),
    # Headrace has tried again itself, and what was produced is paid: the SDK must not order it anew.
    errors.Unanswered: Shape(502, "server_error", {"x-should-retry": "false"}),
    errors.JobOverdue: Shape(504, "server_error", {"x-should-retry": "false"}),
    errors.JobCancelled: Shape(409, "conflict_error", {"x-should-retry": "false"}),
    # It cost nothing, and the queue may be shorter now.
    errors.JobExpired: Shape(503, "server_error", {"Retry-After": str(RETRY_AFTER_S)}),
    errors.Refused: Shape(429, "rate_limit_error"),
    # As OpenAI calls it: an app that heeds it does not come back at once.
    errors.BudgetExceeded: Shape(429, "insufficient_quota"),
    # The job goes on, so that trying again would double it.
    errors.WaitTimeout: Shape(504, "server_error", {"x-should-retry": "false"}),
    errors.Unavailable: Shape(503, "server_error", {"Retry-After": str(RETRY_AFTER_S)}),
    # Such as a tokenizer that cannot be had now: operators read why in the log and at /readyz.
    errors.ConfigError: Shape(503, "server_error", {"Retry-After": str(RETRY_AFTER_S)}),
    HeadraceError: Shape(500, "server_error"),
}

HTTP_CODES: Mapping[int, str] = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}


def register(app: Flask) -> None:
    """Answer every error of the app in this shape, whatever raised it."""
    app.register_error_handler(HeadraceError, answer)
    app.register_error_handler(HTTPException, _answer_http)
    app.register_error_handler(Exception, _answer_bug)


def shape_of(error: HeadraceError) -> Shape:
    """The row of the table that holds for this error."""
    return next(SHAPES[each] for each in type(error).__mro__ if each in SHAPES)


def public_cause(error: HeadraceError) -> str:
    """What a stranger may read of a failure of ours: the driver's words after the colon can name hosts and users."""
    return f"{str(error).partition(':')[0].rstrip('.')}."


def answer(error: HeadraceError) -> Response:
    """One of our own errors."""
    shape = shape_of(error)
    if shape.status == http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return _answer_bug(error)
    message, param = str(error), error.param
    if isinstance(error, errors.Unavailable | errors.ConfigError):
        log.warning("request_unavailable", extra={"request_id": g.request_id, "code": error.code, "error": message})
        message, param = f"{public_cause(error)} Nothing was lost; try again.", None
    headers = dict(shape.headers)
    more: dict[str, Any] = {}
    if isinstance(error, Refused):
        when = error.retry_after_s
        headers |= {"x-should-retry": "false"} if when is None else {"Retry-After": str(when)}
        headers.update(rate_headers(RatesLeft.of(error.rates_left)))
        more["reason"] = error.reason
    if isinstance(error, errors.QueueFull):
        more |= {name: getattr(error, name) for name in ("queue", "depth", "cap", "unit", "expected_wait_s")}
    if error.job_id is not None:
        headers["x-job-id"] = show_id(error.job_id)
    return _problem(shape.status, message, shape.type, error.code, param, headers, more)


def _answer_http(error: HTTPException) -> ResponseReturnValue:
    """What the framework says by itself: an unknown path, a wrong method, a body that is too large, a redirect."""
    status = error.code or http.HTTPStatus.INTERNAL_SERVER_ERROR
    if status < http.HTTPStatus.BAD_REQUEST:
        return error.get_response(request.environ)
    kind = "invalid_request_error" if status < http.HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    headers = {name: value for name, value in error.get_headers(request.environ) if name == "Allow"}
    return _problem(status, _message(error), kind, HTTP_CODES.get(status, "invalid_request"), None, headers)


def _message(error: HTTPException) -> str:
    match error.code:
        case 404:
            return f"There is no path {request.path[:80]}. GET /docs shows what there is."
        case 405:
            known = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
            return f"{request.path[:80]} does not know the method {request.method}. It knows {known}."
        case 413:
            return f"The body is larger than {deps().settings.body_limit_bytes} bytes."
    return error.description or "The request is not valid HTTP."


def _answer_bug(error: Exception) -> Response:
    """Ours to find, not the caller's: the log has the error, the answer its request id."""
    log.error("request_failed", extra={"request_id": g.request_id}, exc_info=error)
    return _problem(500, "Something went wrong here. Nothing was lost.", "server_error", "internal_error", None, {})


def _problem(
    status: int,
    message: str,
    kind: str,
    code: str,
    param: str | None,
    headers: Mapping[str, str],
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Response:
    body = {"error": {"message": message, "type": kind, "param": param, "code": code, **more}}
    response = Response(_encode(body) + "\n", status, mimetype="application/json")
    response.headers.update(headers)
    return response
