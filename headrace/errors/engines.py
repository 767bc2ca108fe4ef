"""Errors of engines. Retries, failover and billing depend on which one it is."""

from headrace.errors.base import HeadraceError

#: A provider's rate limits as it reported them. `domain.limits.rates.ProviderRates` names the numbers.
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
    """

    code = "engine_error"
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
