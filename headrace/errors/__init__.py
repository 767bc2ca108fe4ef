"""Every error of Headrace. `headrace/http/shapes.py` maps each `code` to an HTTP status.

Other packages import from here: a class may move to another module of this package.
"""

from headrace.errors.base import HeadraceError
from headrace.errors.engines import (
    EngineBusy,
    EngineCrash,
    EngineError,
    EngineFault,
    EngineUnavailable,
    ModelUnavailable,
    PromptRejected,
    TooFewAnswers,
    WorkerFault,
)
from headrace.errors.jobs import (
    IllegalTransition,
    JobCancelled,
    JobExpired,
    JobHeld,
    JobNotEnded,
    JobOverdue,
    PayloadTooNew,
    PayloadUnreadable,
    Unanswered,
    WaitTimeout,
)
from headrace.errors.refusals import (
    AppConfined,
    AppLimited,
    BodiesFull,
    BudgetExceeded,
    GoalMissed,
    QueueFull,
    Refused,
    SlotsFull,
)
from headrace.errors.requests import (
    BodyTimeout,
    BodyTooLarge,
    ContextLengthExceeded,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    PermissionDenied,
    PoisonPrompt,
    Unauthenticated,
    UnsupportedEncoding,
)

__all__ = [
    "ActuatorUnavailable",
    "AppConfined",
    "AppLimited",
    "BodiesFull",
    "BodyTimeout",
    "BodyTooLarge",
    "BrokerUnavailable",
    "BudgetExceeded",
    "ConfigError",
    "ContextLengthExceeded",
    "DeliveryFailed",
    "EngineBusy",
    "EngineCrash",
    "EngineError",
    "EngineFault",
    "EngineUnavailable",
    "GoalMissed",
    "HeadraceError",
    "IdempotencyInProgress",
    "IdempotencyKeyReused",
    "IllegalTransition",
    "InvalidRequest",
    "JobCancelled",
    "JobExpired",
    "JobHeld",
    "JobNotEnded",
    "JobOverdue",
    "LockHeld",
    "ModelNotFound",
    "ModelUnavailable",
    "NotFound",
    "OverflowUnavailable",
    "PayloadTooNew",
    "PayloadUnreadable",
    "PermissionDenied",
    "PoisonPrompt",
    "PromptRejected",
    "QueueFull",
    "Refused",
    "SlotsFull",
    "StackError",
    "StoreBusy",
    "StoreUnavailable",
    "TooFewAnswers",
    "Unanswered",
    "Unauthenticated",
    "Unavailable",
    "UnknownPrice",
    "UnsupportedEncoding",
    "WaitTimeout",
    "WorkerFault",
]


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
