"""Every error of Headrace, under one root.

    HeadraceError
    ├── ConfigError              a setting is missing or wrong
    ├── InvalidRequest           the caller must change the request
    │   ├── ContextLengthExceeded
    │   ├── ModelNotFound
    │   ├── PoisonPrompt         it has killed an engine lately
    │   └── IdempotencyKeyReused
    ├── IdempotencyInProgress    the first request with this key has not been answered yet
    ├── Unauthenticated          no valid API key
    ├── PermissionDenied         a valid key, not for this
    ├── NotFound                 no such thing, or another app's
    ├── JobNotEnded              this can be done only to a job that has ended
    ├── BodyTimeout              the client sent its request's body too slowly
    ├── Unanswered               a job ended, or was waited for long enough, without an answer to give
    │   ├── JobExpired
    │   ├── JobOverdue
    │   ├── JobCancelled
    │   └── WaitTimeout
    ├── Refused                  come back later
    │   ├── QueueFull            no candidate queue has room for this job
    │   ├── AppLimited           the app's own limits
    │   ├── BudgetExceeded       no money is left for the paid API
    │   ├── BodiesFull           this process holds as many bytes of request bodies as it may
    │   └── SlotsFull            this process holds as many waits and streams open as it may
    ├── Unavailable              one of our own parts is down
    │   ├── StoreUnavailable     Postgres
    │   ├── BrokerUnavailable    Redis
    │   └── OverflowUnavailable  the paid API
    ├── IllegalTransition        a state change outside the transition table: a bug
    ├── UnknownPrice             no price is listed; we never guess one
    ├── EngineError
    │   ├── PromptRejected       this prompt can never succeed on this engine
    │   ├── EngineFault          this try failed, the engine lives
    │   ├── EngineBusy           the engine takes nothing more just now
    │   └── EngineUnavailable    the engine is dead or not ready
    │       ├── ModelUnavailable it is so for one model
    │       └── EngineCrash      it died under this request
    ├── DeliveryFailed           a webhook was not accepted
    └── StackError               the one-machine stack could not be brought up

HTTP status codes are not known here: `api/problems.py` maps `code` to them.
"""

from headrace.errors.callers import (
    AppLimited,
    BodiesFull,
    BodyTimeout,
    BudgetExceeded,
    ContextLengthExceeded,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    InvalidRequest,
    JobCancelled,
    JobExpired,
    JobNotEnded,
    JobOverdue,
    ModelNotFound,
    NotFound,
    PermissionDenied,
    PoisonPrompt,
    QueueFull,
    Refused,
    SlotsFull,
    Unanswered,
    Unauthenticated,
    WaitTimeout,
)
from headrace.errors.parts import (
    BrokerUnavailable,
    ConfigError,
    DeliveryFailed,
    EngineBusy,
    EngineCrash,
    EngineError,
    EngineFault,
    EngineUnavailable,
    IllegalTransition,
    ModelUnavailable,
    OverflowUnavailable,
    PromptRejected,
    StackError,
    StoreUnavailable,
    Unavailable,
    UnknownPrice,
)
from headrace.errors.root import HeadraceError

__all__ = [
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
    "HeadraceError",
    "IdempotencyInProgress",
    "IdempotencyKeyReused",
    "IllegalTransition",
    "InvalidRequest",
    "JobCancelled",
    "JobExpired",
    "JobNotEnded",
    "JobOverdue",
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
    "StoreUnavailable",
    "Unanswered",
    "Unauthenticated",
    "Unavailable",
    "UnknownPrice",
    "WaitTimeout",
]
