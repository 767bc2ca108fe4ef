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
)
from headrace.errors.jobs import (
    IllegalTransition,
    JobCancelled,
    JobExpired,
    JobHeld,
    JobNotEnded,
    JobOverdue,
    Unanswered,
    WaitTimeout,
)
from headrace.errors.operators import ConfigError, StackError, UnknownPrice
from headrace.errors.outages import (
    ActuatorUnavailable,
    BrokerUnavailable,
    LockHeld,
    OverflowUnavailable,
    StoreBusy,
    StoreUnavailable,
    Unavailable,
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
    ContextLengthExceeded,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    PermissionDenied,
    PoisonPrompt,
    Unauthenticated,
)
from headrace.errors.webhooks import DeliveryFailed

__all__ = [
    "ActuatorUnavailable",
    "AppConfined",
    "AppLimited",
    "BodiesFull",
    "BodyTimeout",
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
    "WaitTimeout",
]
