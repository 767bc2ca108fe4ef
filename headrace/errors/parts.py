"""What parts of ours, and engines, can fail with."""

from headrace.errors.root import HeadraceError
from headrace.limits import ProviderRates


class ConfigError(HeadraceError):
    """A setting is missing or wrong."""

    code = "invalid_configuration"


class Unavailable(HeadraceError):
    """A part of Headrace is down; nothing was lost."""

    code = "unavailable"
    retryable = True


class StoreUnavailable(Unavailable):
    """Postgres does not answer."""

    code = "store_unavailable"


class BrokerUnavailable(Unavailable):
    """Redis does not answer."""

    code = "broker_unavailable"


class OverflowUnavailable(Unavailable):
    """The paid API does not let us in just now."""

    code = "overflow_unavailable"


class IllegalTransition(HeadraceError):
    """A state change outside the transition table: a bug of ours."""

    code = "illegal_transition"


class UnknownPrice(HeadraceError):
    """No price is listed for this model; we never guess one."""

    code = "unknown_price"


class EngineError(HeadraceError):
    """An engine did not answer a prompt.

    Attributes:
        may_be_billed: True when a paid API may have answered, and will charge for it.
        retry_after_s: how long it asks to be left alone; None when it does not say.
        rates: what a paid API said of how many more calls it allows; None when it said nothing.
    """

    code = "engine_error"
    may_be_billed = False
    retry_after_s: float | None = None
    rates: ProviderRates | None = None


class PromptRejected(EngineError):
    """This prompt can never succeed on this engine."""

    code = "prompt_rejected"


class EngineFault(EngineError):
    """This try failed; the engine lives."""

    code = "engine_fault"
    retryable = True


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
        made_tokens: of the answer, by then.
    """

    code = "engine_crash"

    def __init__(self, message: str, *, made_tokens: int) -> None:
        super().__init__(message)
        self.made_tokens = made_tokens


class DeliveryFailed(HeadraceError):
    """A webhook's receiver did not answer with 2xx.

    Attributes:
        status: its HTTP status; None when there was no answer.
        retry_after_s: what its Retry-After asked for; None when it did not.
    """

    code = "delivery_failed"
    retryable = True

    def __init__(self, message: str, *, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after_s = status, retry_after_s


class StackError(HeadraceError):
    """The one-machine stack could not be brought up."""

    code = "stack_error"
