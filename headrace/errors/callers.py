"""What a caller of the API can be told: that the request is wrong, that a job has no answer, or to come back later."""

from typing import Literal
from uuid import UUID

from headrace.errors.root import HeadraceError
from headrace.limits import NO_RATES, RatesLeft


class InvalidRequest(HeadraceError):
    """The request cannot be served as it is; `param` names the field."""

    code = "invalid_value"


class ContextLengthExceeded(InvalidRequest):
    """The prompt and the tokens asked for do not fit the model."""

    code = "context_length_exceeded"


class ModelNotFound(InvalidRequest):
    """No pool serves this model."""

    code = "model_not_found"


class PoisonPrompt(InvalidRequest):
    """The prompt has killed an engine lately."""

    code = "poison_prompt"


class IdempotencyKeyReused(InvalidRequest):
    """The Idempotency-Key was used before with another body or path."""

    code = "idempotency_key_reused"


class IdempotencyInProgress(HeadraceError):
    """The first request with this Idempotency-Key has not been answered yet."""

    code = "idempotency_in_progress"
    retryable = True


class Unauthenticated(HeadraceError):
    """No API key, or one that is not valid."""

    code = "invalid_api_key"


class PermissionDenied(HeadraceError):
    """The API key is valid and may not do this."""

    code = "permission_denied"


class NotFound(HeadraceError):
    """There is no such thing here, or it belongs to another app."""

    code = "not_found"


class JobNotEnded(HeadraceError):
    """The job has not ended yet."""

    code = "job_not_ended"
    retryable = True


class Unanswered(HeadraceError):
    """There is no answer to give; `code` is the job's own, if it has one."""

    code = "job_failed"

    def __init__(self, message: str, job_id: UUID, *, code: str | None = None) -> None:
        super().__init__(message, code=code, job_id=job_id)


class JobExpired(Unanswered):
    """It could not start in time, and cost nothing."""

    code = "expired"
    retryable = True


class JobOverdue(Unanswered):
    """Its deadline passed before it could finish."""

    code = "deadline_exceeded"


class JobCancelled(Unanswered):
    """It was cancelled while its caller waited for it."""

    code = "job_cancelled"


class WaitTimeout(Unanswered):
    """The job did not end within the wait; it goes on and can be polled."""

    code = "wait_timeout"
    retryable = True


class BodyTimeout(HeadraceError):
    """The client sent its request's body too slowly; nothing was accepted."""

    code = "body_timeout"
    retryable = True


class Refused(HeadraceError):
    """Not now.

    Attributes:
        reason: the bound it met, in one word.
        retry_after_s: whole seconds after which a retry makes sense; None when it does not.
        rates_left: of the app's own limits.
    """

    code = "refused"
    retryable = True

    def __init__(
        self, message: str, *, reason: str, retry_after_s: int | None = None, rates_left: RatesLeft = NO_RATES
    ) -> None:
        super().__init__(message)
        self.reason, self.retry_after_s, self.rates_left = reason, retry_after_s, rates_left


class QueueFull(Refused):
    """No candidate queue has room for this job.

    Attributes:
        queue: the first candidate, where the reason is depth, tokens, wait, share, token_share or app_jobs.
        depth: what waits in it, in the cap's unit, counted in the same step that refused.
        cap: the bound.
        unit: of depth and cap.
        expected_wait_s: of a job at its end; None when nobody can tell.
    """

    code = "queue_full"

    def __init__(
        self,
        message: str,
        *,
        queue: str,
        reason: str,
        depth: int,
        cap: int,
        unit: Literal["jobs", "tokens"] = "jobs",
        expected_wait_s: float | None = None,
        retry_after_s: int | None = None,
        rates_left: RatesLeft = NO_RATES,
    ) -> None:
        super().__init__(message, reason=reason, retry_after_s=retry_after_s, rates_left=rates_left)
        self.queue, self.depth, self.cap, self.unit = queue, depth, cap, unit
        self.expected_wait_s = expected_wait_s


class AppLimited(Refused):
    """The app has used up its minute: the reason is requests_per_minute or tokens_per_minute."""

    code = "rate_limit_exceeded"


class BudgetExceeded(Refused):
    """A budget has too little left for the only way this job may go."""

    code = "budget_exceeded"


class BodiesFull(Refused):
    """This process holds as many bytes of large request bodies as it may, of all apps or of this one."""

    code = "bodies_full"


class SlotsFull(Refused):
    """This process holds as many waits and streams open as it may."""

    code = "sync_slots_full"
