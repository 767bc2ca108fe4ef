"""How each class of errors is answered: its HTTP status, OpenAI's type, and headers. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace import errors
from headrace.errors import HeadraceError

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
    # The rest of the body is not read: the connection carries no other request.
    errors.BodyTimeout: Shape(408, "invalid_request_error", {"Connection": "close"}),
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


def shape_of(error: HeadraceError) -> Shape:
    """The row of the table that holds for this error."""
    return next(SHAPES[each] for each in type(error).__mro__ if each in SHAPES)
