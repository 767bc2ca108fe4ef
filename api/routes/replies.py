"""Replies: a body with the headers of its job, or an error with its status, OpenAI's error body and what is logged.

`headrace.http` has the shape of each error. Without a setting, no web page may call the API from a browser. Keys are
sent in a header, not in a cookie, so a page can only use a key that it has.
"""

import http
import logging
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from flask import Request, Response
from pydantic import BaseModel
from pydantic_core import to_json

from api.door.drafts import Accepted
from api.door.refusals import RETRY_AFTER_LIMIT_S
from api.routes.operations import JSON
from api.schemas.logprobs import Fragments
from headrace import errors
from headrace.domain.fleet import NO_WORKER_REASON
from headrace.domain.ids import show_id
from headrace.domain.jobs import Job
from headrace.domain.limits import RatesLeft
from headrace.errors import HeadraceError, JobUnserved, OverflowUnserved, Refused
from headrace.http import shape_of

log = logging.getLogger(__name__)

#: What the message of such an error says after the colon is a driver's text.
_OURS = (errors.Unavailable, errors.ConfigError)


#: Lets every page call.
ANY = "*"
#: Seconds for which a browser remembers the answer to a preflight request. Chromium's own limit.
MAX_AGE_S = 7200
PAGE_METHODS = "GET, POST, DELETE"
#: Headers that a page can send where it does not name them. An SDK sends many of its own.
ALLOWED = "Authorization, Content-Type, Idempotency-Key, Prefer"
#: Headers of answers that a page can read.
EXPOSED = (
    "x-request-id, openai-processing-ms, x-job-id, x-headrace-cost-usd, x-headrace-cache, Idempotent-Replayed, "
    "x-headrace-confined-until, Retry-After, x-should-retry, x-ratelimit-limit-requests, "
    "x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, "
    "x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, x-ratelimit-limit-calls, "
    "x-ratelimit-remaining-calls, x-ratelimit-reset-calls"
)


def reply_of(body: BaseModel, status: int = 200) -> Response:
    """Returns a model as JSON, with a newline at its end."""
    # Straight from the model: through a dict it takes twice as long.
    fragments = Fragments()
    text = fragments.filled(body.model_dump_json(context=fragments))
    return Response(f"{text}\n", status, content_type=JSON)


def with_job_headers(reply: Response, accepted: Accepted | None = None, job: Job | None = None) -> Response:
    """Adds the headers of an accept in every format, and those of the job as it stands, if it was read."""
    headers, cache = reply.headers, None
    if accepted is not None:
        cache = accepted.cache
        headers["x-job-id"] = show_id(accepted.job_id)
        if accepted.is_replay:
            headers["Idempotent-Replayed"] = "true"
        if accepted.rates_left:
            headers.update(rate_headers(accepted.rates_left))
        if accepted.confined_until:
            headers.update(confined_header(accepted.confined_until))
    if job is not None:
        cache = job.cache
        headers["x-job-id"] = show_id(job.id)
        if job.state.is_terminal:
            # The bill is written when the job ends. Spelled as in the body.
            headers["x-headrace-cost-usd"] = f"{job.usd:f}"
    if cache:
        headers["x-headrace-cache"] = cache
    return reply


def problem(error: Exception, request_id: str) -> Response:
    """Returns the reply to a call that failed. Args: request_id: for the log."""
    if not isinstance(error, HeadraceError):
        return _bug(error, request_id)
    shape = shape_of(error)
    if shape.status == http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return _bug(error, request_id)
    message, param = str(error), error.param
    if isinstance(error, _OURS):
        log.warning("request_unavailable", extra={"request_id": request_id, "code": error.code, "error": message})
        if not isinstance(error, OverflowUnserved):
            message, param = f"{error.public_cause} Nothing was lost; try again.", None
    headers, more = dict(shape.headers), dict[str, Any]()
    if isinstance(error, Refused | JobUnserved | OverflowUnserved):
        of_refusal, more = _of_refusal(error)
        headers |= of_refusal
    if error.job_id is not None:
        headers["x-job-id"] = show_id(error.job_id)
    reply = problem_reply(shape.status, message, shape.type, error.code, param=param, more=more)
    reply.headers.update(headers)
    return reply


def problem_reply(
    status: int,
    message: str,
    kind: str,
    code: str,
    *,
    param: str | None = None,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Response:
    """Returns an error as OpenAI spells it. Args: more: further fields."""
    body = {"error": {"message": message, "type": kind, "param": param, "code": code, **more}}
    return Response(to_json(body) + b"\n", status, content_type=JSON)


def _of_refusal(error: Refused | JobUnserved | OverflowUnserved) -> tuple[dict[str, str], dict[str, Any]]:
    """Returns the headers of a refusal, and the fields that its body has beside an error's usual ones."""
    when, more = error.retry_after_s, dict[str, Any](reason=error.reason)
    headers = {} if when is None else {"Retry-After": str(when)}
    if when is None or when > RETRY_AFTER_LIMIT_S:
        headers["x-should-retry"] = "false"
    if isinstance(error, Refused):
        headers |= rate_headers(RatesLeft.of(error.rates_left))
    if isinstance(error, errors.AppConfined):
        headers |= confined_header(error.until)
    if isinstance(error, errors.QueueFull):
        more |= {name: getattr(error, name) for name in ("queue", "depth", "cap", "unit", "expected_wait_s")}
    if isinstance(error, errors.QueueFull | JobUnserved) and error.reason == NO_WORKER_REASON:
        more["worker_in_s"] = error.worker_in_s
    return headers, more


def _bug(error: Exception, request_id: str) -> Response:
    """Returns a bug, which the caller cannot fix: the log has the error, and the reply only the request's id."""
    log.error("request_failed", extra={"request_id": request_id}, exc_info=error)
    return problem_reply(500, "Something went wrong here. Nothing was lost.", "server_error", "internal_error")


def rate_headers(rates: RatesLeft) -> dict[str, str]:
    """Returns an app's rates in OpenAI's spelling: `x-ratelimit-*` for each limited rate; nothing for the others."""
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
    """Returns a duration in OpenAI's spelling: `120ms`, `7.66s`, `6m0s`."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(round(seconds, 2), 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"


def cors_headers(origins: Collection[str], request: Request) -> dict[str, str]:
    """Returns the headers by which a browser lets pages of these origins read the reply; none for other pages."""
    origin = request.headers.get("Origin")
    # A cache must not give one origin the reply to another.
    headers = {} if ANY in origins else {"Vary": "Origin"}
    if origin is None or not (ANY in origins or origin in origins):
        return headers
    headers["Access-Control-Allow-Origin"] = ANY if ANY in origins else origin
    headers["Access-Control-Expose-Headers"] = EXPOSED
    if request.method == "OPTIONS" and request.headers.get("Access-Control-Request-Method") is not None:
        headers["Access-Control-Allow-Methods"] = PAGE_METHODS
        headers["Access-Control-Allow-Headers"] = request.headers.get("Access-Control-Request-Headers") or ALLOWED
        headers["Access-Control-Max-Age"] = str(MAX_AGE_S)
    return headers
