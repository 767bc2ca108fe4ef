"""The HTTP status, OpenAI's error type and the headers of each class of errors. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace import errors
from headrace.errors import HeadraceError

#: Seconds until a client should retry when a server is down.
RETRY_AFTER_S = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """The answer to one class of errors."""

    status: int
    type: str
    headers: Mapping[str, str] = field(default_factory=dict)


#: The nearest base class of an error decides. The openai SDK retries 408, 409, 429 and 5xx by itself.
SHAPES: Mapping[type[HeadraceError], Shape] = {
    errors.InvalidRequest: Shape(400, "invalid_request_error"),
    errors.ModelNotFound: Shape(404, "invalid_request_error"),
    errors.IdempotencyKeyReused: Shape(422, "idempotency_error"),
    errors.IdempotencyInProgress: Shape(409, "idempotency_error", {"Retry-After": "1"}),
    errors.Unauthenticated: Shape(401, "invalid_request_error", {"WWW-Authenticate": "Bearer"}),
    errors.PermissionDenied: Shape(403, "permission_error"),
    errors.NotFound: Shape(404, "invalid_request_error"),
    # During a deployment: a process of the newer release can serve it.
    errors.PayloadTooNew: Shape(503, "server_error", {"Retry-After": str(RETRY_AFTER_S)}),
    errors.JobNotEnded: Shape(409, "conflict_error", {"Retry-After": "1"}),
    # The rest of the body is not read, so the connection cannot carry another request.
    errors.BodyTimeout: Shape(408, "invalid_request_error", {"Connection": "close"}),
    errors.BodyTooLarge: Shape(413, "invalid_request_error"),
    errors.UnsupportedEncoding: Shape(415, "invalid_request_error"),
    # Headrace has retried by itself, and the output is paid for: the SDK must not retry.
    errors.Unanswered: Shape(502, "server_error", {"x-should-retry": "false"}),
    errors.JobOverdue: Shape(504, "server_error", {"x-should-retry": "false"}),
    errors.JobCancelled: Shape(409, "conflict_error", {"x-should-retry": "false"}),
    # The job cost nothing, and the queue may be shorter now.
    errors.JobExpired: Shape(503, "server_error", {"Retry-After": str(RETRY_AFTER_S)}),
    # A retry would wait in vain, too.
    errors.JobHeld: Shape(503, "server_error", {"x-should-retry": "false"}),
    errors.Refused: Shape(429, "rate_limit_error"),
    # OpenAI's type: an app that handles it does not retry at once.
    errors.BudgetExceeded: Shape(429, "insufficient_quota"),
    # The job goes on, so a retry would run it twice.
    errors.WaitTimeout: Shape(504, "server_error", {"x-should-retry": "false"}),
    errors.Unavailable: Shape(503, "server_error", {"Retry-After": str(RETRY_AFTER_S)}),
    # For example, a tokenizer that cannot be loaded now. Operators find the cause in the log and at /readyz.
    errors.ConfigError: Shape(503, "server_error", {"Retry-After": str(RETRY_AFTER_S)}),
    HeadraceError: Shape(500, "server_error"),
}


def shape_of(error: HeadraceError) -> Shape:
    """The table's row for this error."""
    return next(SHAPES[each] for each in type(error).__mro__ if each in SHAPES)
