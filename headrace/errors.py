"""Every error of Headrace. `headrace/http.py` maps each `code` to an HTTP status."""

import difflib
from collections.abc import Iterable
from datetime import datetime
from typing import Literal, Self
from uuid import UUID


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> list[str]:
    """The known name that this one may be a misspelling of, if any. Args: likeness: as of `difflib`."""
    return difflib.get_close_matches(name, sorted(known), 1, likeness)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: which one may be meant. Empty if none is near."""
    return "".join(f" Did you mean '{near}'?" for near in nearest(name, known))


class HeadraceError(Exception):
    """Base class of all errors. The message addresses the caller or operator that can act on it.

    Attributes:
        code: stable, machine-readable; part of the API.
        retryable: True when the same request may succeed later.
        param: the request field or setting at fault, as a dotted path; None if no single one is.
        job_id: the job that the error is about; None if it is about no job.
    """

    code = "internal_error"
    retryable = False

    def __init__(
        self, message: str = "", *, code: str | None = None, param: str | None = None, job_id: UUID | None = None
    ) -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])
        self.param, self.job_id = param, job_id
        if code is not None:
            self.code = code

    @property
    def public_cause(self) -> str:
        """The public part of the message: a driver's text after the colon can name hosts and users."""
        return f"{str(self).partition(':')[0].rstrip('.')}."


class InvalidRequest(HeadraceError):
    """The request cannot be served as it is; `param` names the field."""

    code = "invalid_value"


class ContextLengthExceeded(InvalidRequest):
    """The prompt and the tokens asked for do not fit the model."""

    code = "context_length_exceeded"

    @classmethod
    def beyond(cls, limit: int, rest: str, param: str) -> Self:
        """The error of a prompt that is too long, with the words that LiteLLM and LangChain search its message for.

        Args: rest: follows the limit in the message's first sentence.
        """
        return cls(f"This model's maximum context length is {limit} tokens{rest} ({cls.code})", param=param)


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
    """The thing does not exist, or belongs to another app."""

    code = "not_found"


class BodyTimeout(HeadraceError):
    """The client sent its request's body too slowly; nothing was accepted."""

    code = "body_timeout"
    retryable = True


class BodyTooLarge(HeadraceError):
    """The request's body is larger than this server takes."""

    code = "request_too_large"


class HeaderTooLarge(HeadraceError):
    """A header that is parsed is longer than its parser is given."""

    code = "header_too_large"


class UnsupportedEncoding(HeadraceError):
    """The request's body is packed in a way that this server does not read."""

    code = "unsupported_encoding"


#: (limit per minute, what is left of it, seconds' worth that the bucket holds) for an app's requests, tokens and calls;
#: None for a rate without a limit. `domain.limits.RatesLeft` names the numbers.
RatesLeft = tuple[tuple[int, int, float] | None, ...]


class Refused(HeadraceError):
    """Not now.

    Attributes:
        reason: the bound that was met, in one word.
        retry_after_s: whole seconds after which a retry makes sense; None when a retry makes no sense.
        rates_left: what is left of the app's own rates.
    """

    code = "refused"
    retryable = True

    def __init__(
        self, message: str, *, reason: str, retry_after_s: int | None = None, rates_left: RatesLeft = ()
    ) -> None:
        super().__init__(message)
        self.reason, self.retry_after_s, self.rates_left = reason, retry_after_s, rates_left


class QueueFull(Refused):
    """No candidate queue has room for this job.

    Attributes:
        queue: the first candidate, for the reasons depth, tokens, wait, share, token_share, no_worker and app_jobs.
        depth: what waits in it, in `unit`, counted in the step that refused.
        cap: the bound that was met, in `unit`.
        unit: of depth and cap.
        expected_wait_s: the wait of a job at the end of the queue; None if unknown.
        worker_in_s: for the reason no_worker, seconds until the host on order is likely ready; None without one.
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
        rates_left: RatesLeft = (),
        worker_in_s: float | None = None,
    ) -> None:
        super().__init__(message, reason=reason, retry_after_s=retry_after_s, rates_left=rates_left)
        self.queue, self.depth, self.cap, self.unit = queue, depth, cap, unit
        self.expected_wait_s, self.worker_in_s = expected_wait_s, worker_in_s


class AppLimited(Refused):
    """The app has used up its minute: the reason is requests_per_minute, tokens_per_minute or calls_per_minute."""

    code = "rate_limit_exceeded"


class AppConfined(Refused):
    """Prompts of the app killed engines of the pool, where its jobs run one at a time, and enough of them wait.

    Attributes:
        until: when the confinement ends.
    """

    code = "app_confined"

    def __init__(self, message: str, *, retry_after_s: int, until: datetime) -> None:
        super().__init__(message, reason="confined", retry_after_s=retry_after_s)
        self.until = until


class BudgetExceeded(Refused):
    """A budget has too little left for the only way this job may go."""

    code = "budget_exceeded"


class GoalMissed(Refused):
    """The job's pool would answer later than its latency goal, and the paid API is closed to the job."""

    code = "latency_goal_missed"


class BodiesFull(Refused):
    """This process holds as many bytes of large request bodies as it may, of all apps or of this one."""

    code = "bodies_full"


class SlotsFull(Refused):
    """This process holds as many waits and streams open, or reads as much usage at once, as it may."""

    code = "sync_slots_full"


class IllegalTransition(HeadraceError):
    """A state change outside the transition table: a bug in Headrace."""

    code = "illegal_transition"


class PayloadUnreadable(HeadraceError):
    """The job's stored prompt is malformed: no release reads it."""

    code = "payload_unreadable"


class PayloadTooNew(PayloadUnreadable):
    """A newer release wrote the job's prompt, in a version that this process does not read.

    Attributes:
        version: of the payload.
    """

    code = "payload_too_new"
    retryable = True

    def __init__(self, version: int, reads: int) -> None:
        super().__init__(f"The job's prompt is stored in version {version}; this process reads {reads} at most.")
        self.version = version


class JobNotEnded(HeadraceError):
    """The job has not ended yet."""

    code = "job_not_ended"
    retryable = True


class Unanswered(HeadraceError):
    """The job has no answer; `code` is the job's own error code, if it has one."""

    code = "job_failed"

    def __init__(self, message: str, job_id: UUID, *, code: str | None = None) -> None:
        super().__init__(message, code=code, job_id=job_id)


class JobExpired(Unanswered):
    """It could not start in time, and cost nothing."""

    code = "expired"
    retryable = True


class JobHeld(JobExpired):
    """It could not start in time, because its app is confined."""

    code = "app_confined"


class JobUnserved(JobExpired):
    """It could not start in time, and no worker serves its pool. The attributes are those of `Refused`."""

    def __init__(self, message: str, job_id: UUID, *, retry_after_s: int | None, worker_in_s: float | None) -> None:
        super().__init__(message, job_id)
        self.reason, self.retry_after_s, self.worker_in_s = "no_worker", retry_after_s, worker_in_s


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


#: A provider's rate limits as it reported them. `domain.limits.ProviderRates` names the numbers.
ProviderRates = tuple[float, tuple[int, int, float] | None, tuple[int, int, float] | None]
#: The tokens of a call as a paid API counted them. `domain.attempts.Usage` names the numbers.
BilledTokens = tuple[int, int, int, int]


class EngineError(HeadraceError):
    """An engine did not answer a prompt.

    Attributes:
        may_be_billed: True when a paid API may have answered and may charge for it.
        billed_tokens: for what it charges, if it said so, in the tier `billed_tier`.
        retry_after_s: how long the engine asks callers to wait; None if it does not say.
        rates: the rate limits that a paid API reported; None if it reported none.
        cause: how a paid API failed, in a few words for every operator: its status and its error's code, or why it did
            not answer. Never its message, which may quote the prompt or the account. None for other engines.
    """

    code = "engine_error"
    cause: str | None = None
    may_be_billed = False
    billed_tokens: BilledTokens | None = None
    billed_tier: str | None = None
    retry_after_s: float | None = None
    rates: ProviderRates | None = None


class PromptRejected(EngineError):
    """This prompt can never succeed on this engine."""

    code = "prompt_rejected"


class TooFewAnswers(PromptRejected):
    """A paid API made fewer answers than the prompt asks for. Another engine may make them all."""


class EngineFault(EngineError):
    """This try failed; the engine lives."""

    code = "engine_fault"
    retryable = True


class WorkerFault(EngineFault):
    """A defect of Headrace ended this try, in a worker that lives."""

    code = "internal_error"


class EngineBusy(EngineError):
    """The engine takes nothing more just now: a rate limit, which passes."""

    code = "engine_busy"
    retryable = True


class EngineUnavailable(EngineError):
    """The engine is dead or not ready."""

    code = "engine_unavailable"
    retryable = True


class ModelUnavailable(EngineUnavailable):
    """The engine does not let us use this model; it may well let us use others."""


class EngineCrash(EngineUnavailable):
    """The engine died while it worked on this request.

    Attributes:
        made_tokens: tokens of the answer generated before the crash.
    """

    code = "engine_crash"

    def __init__(self, message: str, *, made_tokens: int) -> None:
        super().__init__(message)
        self.made_tokens = made_tokens


class ConfigError(HeadraceError):
    """A setting is missing or wrong."""

    code = "invalid_configuration"


class UnknownPrice(HeadraceError):
    """No price is listed for this model; we never guess one."""

    code = "unknown_price"


class StackError(HeadraceError):
    """The one-machine stack could not be brought up."""

    code = "stack_error"


class Unavailable(HeadraceError):
    """A part of Headrace is down; nothing was lost."""

    code = "unavailable"
    retryable = True


class StoreUnavailable(Unavailable):
    """Postgres does not answer."""

    code = "store_unavailable"


class StoreBusy(StoreUnavailable):
    """Postgres answers, but a row that this statement needs stayed locked, or the statement took too long.

    The same statement about other rows may succeed.
    """


class LockHeld(HeadraceError):
    """Another process does the same work at this moment: this one has nothing to do."""

    code = "lock_held"


class BrokerUnavailable(Unavailable):
    """Redis does not answer."""

    code = "broker_unavailable"


class OverflowUnavailable(Unavailable):
    """The paid API does not let us in just now."""

    code = "overflow_unavailable"


class OverflowUnserved(OverflowUnavailable):
    """No worker calls the paid API. The attributes are those of `Refused`."""

    def __init__(self, message: str, *, retry_after_s: int | None) -> None:
        super().__init__(message)
        self.reason, self.retry_after_s = "no_worker", retry_after_s


class ActuatorUnavailable(Unavailable):
    """What starts and ends hosts did not do what it was asked to, or not all of it. The call is repeated later."""

    code = "actuator_unavailable"


class DeliveryFailed(HeadraceError):
    """A webhook's receiver did not answer with 2xx.

    Attributes:
        status: the receiver's HTTP status; None without an answer.
        retry_after_s: the value of its Retry-After; None if it sent none.
    """

    code = "delivery_failed"
    retryable = True

    def __init__(self, message: str, *, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after_s = status, retry_after_s
