"""Errors as replies: status, OpenAI's error body, headers, and what is logged. Shapes: `headrace.http.shapes`."""

import http
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from pydantic_core import to_json

from api.call import Reply
from headrace import errors
from headrace.domain.ids import show_id
from headrace.domain.limits.rates import RatesLeft
from headrace.errors import HeadraceError, Refused
from headrace.http.shapes import shape_of

log = logging.getLogger(__name__)

#: What the message of such an error says after the colon is a driver's text.
_OURS = (errors.Unavailable, errors.ConfigError)


def problem(error: Exception, request_id: str) -> Reply:
    """The reply to a call that failed. Args: request_id: for the log."""
    if not isinstance(error, HeadraceError):
        return _bug(error, request_id)
    shape = shape_of(error)
    if shape.status == http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return _bug(error, request_id)
    message, param = str(error), error.param
    if isinstance(error, _OURS):
        log.warning("request_unavailable", extra={"request_id": request_id, "code": error.code, "error": message})
        message, param = f"{error.public_cause} Nothing was lost; try again.", None
    headers, more = dict(shape.headers), dict[str, Any]()
    if isinstance(error, Refused):
        of_refusal, more = _of_refusal(error)
        headers |= of_refusal
    if error.job_id is not None:
        headers["x-job-id"] = show_id(error.job_id)
    reply = problem_reply(shape.status, message, shape.type, error.code, param=param, more=more)
    reply.headers |= headers
    reply.refusal = error.reason if isinstance(error, Refused) else None
    return reply


def problem_reply(
    status: int,
    message: str,
    kind: str,
    code: str,
    *,
    param: str | None = None,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Reply:
    """An error as OpenAI spells it. Args: more: further fields."""
    body = {"error": {"message": message, "type": kind, "param": param, "code": code, **more}}
    return Reply(status, to_json(body) + b"\n", {"Content-Type": "application/json"})


def _of_refusal(error: Refused) -> tuple[dict[str, str], dict[str, Any]]:
    """The headers of a refusal, and the fields that its body has beside an error's usual ones."""
    when, more = error.retry_after_s, {"reason": error.reason}
    headers = {"x-should-retry": "false"} if when is None else {"Retry-After": str(when)}
    headers |= rate_headers(RatesLeft.of(error.rates_left))
    if isinstance(error, errors.AppConfined):
        headers |= confined_header(error.until)
    if isinstance(error, errors.QueueFull):
        more |= {name: getattr(error, name) for name in ("queue", "depth", "cap", "unit", "expected_wait_s")}
    return headers, more


def _bug(error: Exception, request_id: str) -> Reply:
    """A bug, which the caller cannot fix: the log has the error, and the reply only the request's id."""
    log.error("request_failed", extra={"request_id": request_id}, exc_info=error)
    return problem_reply(500, "Something went wrong here. Nothing was lost.", "server_error", "internal_error")


def rate_headers(rates: RatesLeft) -> dict[str, str]:
    """An app's rates in OpenAI's spelling: `x-ratelimit-*` for each limited rate; nothing for the others."""
    headers = {}
    for name, rate in (("requests", rates.requests), ("tokens", rates.tokens), ("calls", rates.calls)):
        if rate is not None:
            headers[f"x-ratelimit-limit-{name}"] = str(rate.limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(max(0, rate.left))
            headers[f"x-ratelimit-reset-{name}"] = duration(rate.full_in_s)
    return headers


def confined_header(until: datetime) -> dict[str, str]:
    """Until when the app's jobs in the pool run one at a time."""
    return {"x-headrace-confined-until": f"{until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"}


def duration(seconds: float) -> str:
    """A duration in OpenAI's spelling: `120ms`, `7.66s`, `6m0s`."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(round(seconds, 2), 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"
