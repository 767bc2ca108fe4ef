"""Errors as HTTP answers, in the shapes of `headrace.http.shapes`."""

import http
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from flask import Flask, Response, g, request
from flask.typing import ResponseReturnValue
from pydantic_core import to_json
from werkzeug.exceptions import HTTPException

from api.deps import deps
from api.errors.methods import allowed_methods
from api.errors.rates import confined_header, rate_headers
from headrace import errors
from headrace.domain.ids import show_id
from headrace.domain.limits.rates import RatesLeft
from headrace.errors import HeadraceError, Refused
from headrace.http.shapes import shape_of

log = logging.getLogger(__name__)

#: What the message of such an error says after the colon is a driver's text.
_OURS = (errors.Unavailable, errors.ConfigError)
#: Where `web` once served the operators' pages.
OPS_PATH = "/ops"
HTTP_CODES: Mapping[int, str] = {
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    415: "unsupported_encoding",
}


def register(app: Flask) -> None:
    """Register the handlers for every error of the app, whatever raised it."""
    app.register_error_handler(HeadraceError, answer)
    app.register_error_handler(HTTPException, _answer_http)
    app.register_error_handler(Exception, _answer_bug)


def answer(error: HeadraceError) -> Response:
    """The answer to one of Headrace's errors."""
    shape = shape_of(error)
    if shape.status == http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return _answer_bug(error)
    message, param = str(error), error.param
    if isinstance(error, _OURS):
        log.warning("request_unavailable", extra={"request_id": g.request_id, "code": error.code, "error": message})
        message, param = f"{error.public_cause} Nothing was lost; try again.", None
    headers = dict(shape.headers)
    more: dict[str, Any] = {}
    if isinstance(error, Refused):
        g.refusal = error.reason
        told, more = told_of_refusal(error)
        headers |= told
    if error.job_id is not None:
        headers["x-job-id"] = show_id(error.job_id)
    return _problem(shape.status, body_of(message, shape.type, error.code, param, more), headers)


def told_of_refusal(error: Refused) -> tuple[dict[str, str], dict[str, Any]]:
    """The headers of a refusal's answer, and what its body has beside an error's usual fields."""
    when, more = error.retry_after_s, {"reason": error.reason}
    headers = {"x-should-retry": "false"} if when is None else {"Retry-After": str(when)}
    headers |= rate_headers(RatesLeft.of(error.rates_left))
    if isinstance(error, errors.AppConfined):
        headers |= confined_header(error.until)
    if isinstance(error, errors.QueueFull):
        more |= {name: getattr(error, name) for name in ("queue", "depth", "cap", "unit", "expected_wait_s")}
    return headers, more


def _answer_http(error: HTTPException) -> ResponseReturnValue:
    """An answer of the framework's own: an unknown path, a wrong method, a body that is too large, a redirect."""
    status = error.code or http.HTTPStatus.INTERNAL_SERVER_ERROR
    if status < http.HTTPStatus.BAD_REQUEST:
        return error.get_response(request.environ)
    kind = "invalid_request_error" if status < http.HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    headers = {"Allow": ", ".join(allowed_methods())} if status == http.HTTPStatus.METHOD_NOT_ALLOWED else {}
    return _problem(status, body_of(_message(error), kind, HTTP_CODES.get(status, "invalid_request")), headers)


def _message(error: HTTPException) -> str:
    match error.code:
        case 404:
            if request.path == OPS_PATH or request.path.startswith(f"{OPS_PATH}/"):
                return "The process 'ops' serves the operators' pages, at an address of its own: see docs/ops.md."
            return f"There is no path {request.path[:80]}. GET /docs shows what there is."
        case 405:
            known = ", ".join(allowed_methods())
            return f"{request.path[:80]} does not know the method {request.method}. It knows {known}."
        case 413:
            return f"The body is larger than {deps().settings.body_limit_bytes} bytes."
    return error.description or "The request is not valid HTTP."


def _answer_bug(error: Exception) -> Response:
    """A bug, which the caller cannot fix: the log has the error, and the answer only the request id."""
    log.error("request_failed", extra={"request_id": g.request_id}, exc_info=error)
    return _problem(500, body_of("Something went wrong here. Nothing was lost.", "server_error", "internal_error"))


def _problem(status: int, body: bytes, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    return Response(body, status, headers, mimetype="application/json")


def body_of(
    message: str, kind: str, code: str, param: str | None = None, more: Mapping[str, Any] = MappingProxyType({})
) -> bytes:
    """An error as OpenAI spells it, in JSON. Args: more: further fields."""
    return to_json({"error": {"message": message, "type": kind, "param": param, "code": code, **more}}) + b"\n"
