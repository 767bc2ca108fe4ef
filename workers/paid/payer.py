"""Decides whether the paid API may answer a job now: its owner allows it, the price is known, the budgets suffice."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from headrace import store
from headrace.domain.attempts import ApiTier, AttemptEnd, Claim
from headrace.domain.limits.budgets import Cost, Lack, Limits
from headrace.domain.limits.rates import ProviderRates
from headrace.domain.queues import Lane
from headrace.errors import (
    EngineBusy,
    EngineError,
    EngineUnavailable,
    ModelUnavailable,
    PromptRejected,
    StoreUnavailable,
)
from headrace.policies.overflow import Objection, quote
from headrace.policies.pricing import Tariff
from headrace.store import Store
from workers.engines.base import Generation
from workers.paid.lockout import Lockout
from workers.paid.pacer import Pacer
from workers.sharing import Sharing, gathering_paid

log = logging.getLogger(__name__)

#: The end of an attempt that made no call.
NO_CALL = AttemptEnd("failed", 0.0, Cost(Decimal(0), "unpriced"), "waste")
#: Seconds after which a job that met a running probe asks again.
PROBE_PAUSE_S = 1.0
#: The longest time that a call of the cheaper tier takes, or takes to be refused. A job needs more time than this left.
#: Source: OpenAI's guide "Flex processing", which advises a time-out of 15 minutes.
FLEX_TIME = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class NotYet:
    """The call may be made after `delay_s` seconds, not earlier."""

    delay_s: float


class _Reserving(Future[Claim | Lack | None]):
    """The reservation of the most that a claim's call can cost; None if the claim is lost."""

    def __init__(self, claim: Claim, usd: Decimal) -> None:
        super().__init__()
        self.claim, self.usd = claim, usd


@dataclass(slots=True)
class Payer:
    """Pays for calls.

    Attributes:
        api_model: the paid model that answers a job of a model.
        configured: the limits in the settings for all apps together. Stored limits win.
        lockout: the API's lock-outs: of the account (no money, or no valid key), or of single models.
        pacer: keeps the calls to the account's rates.
    """

    store: Store
    api_model: Callable[[str], str]
    configured: Limits
    lockout: Lockout
    pacer: Pacer
    _shared: Sharing[_Reserving, Claim | Lack | None] = field(init=False)

    def __post_init__(self) -> None:
        self._shared = Sharing(ThreadPoolExecutor(2, "money"), self._reserve_all, gathering_paid())

    @property
    def is_open(self) -> bool:
        """False while another job could only wait: for the rates, or for a probe's outcome."""
        return self.pacer.is_open and not self.lockout.is_probing

    def note_outcome(self, claim: Claim, outcome: Generation | EngineError, tier: ApiTier | None) -> None:
        """Note the outcome of a claim's call in this tier."""
        # A `flex` tier without capacity must not hold back calls of the other tier.
        hold_s = outcome.retry_after_s if isinstance(outcome, EngineBusy) and tier != "flex" else None
        model = self.api_model(claim.model)
        rates = outcome.rates and ProviderRates.of(outcome.rates)
        self.pacer.hear(model, rates, hold_s)
        if isinstance(outcome, Generation | PromptRejected):
            if self.lockout.succeeded(model):
                log.warning("overflow_is_back", extra={"model": model})
        elif isinstance(outcome, ModelUnavailable):
            if self.lockout.model_failed(model):
                log.error("overflow_model_is_locked_out", extra={"model": model, "error": str(outcome)})
        elif isinstance(outcome, EngineUnavailable):
            if self.lockout.account_failed(model):
                log.error("overflow_is_locked_out", extra={"error": str(outcome)})
        else:
            self.lockout.is_unsure(model)

    def not_called(self, claim: Claim) -> None:
        """Note that an admitted call, which may be a breaker's probe, is not made."""
        self.lockout.is_unsure(self.api_model(claim.model))

    def tier(self, claim: Claim, tariff: Tariff) -> ApiTier | None:
        """The service tier to call: the cheaper one for a job with time to spare. None if the API has only one."""
        has_time = min(claim.start_by, claim.finish_by or claim.start_by) - datetime.now(UTC) > FLEX_TIME
        # From the second attempt on a refusal counts as an attempt, so it avoids the tier that refuses more often.
        may_wait = claim.attempt == 1 and claim.lane in (Lane.LOW, Lane.BATCH)
        return tariff.api_tier(claim.model, has_time=has_time and may_wait)

    def reserve(self, claim: Claim, tariff: Tariff) -> Claim | Objection | NotYet | None:
        """Reserve the most that a claim's call can cost, once the rates allow the call.

        Args: tariff: the prices at which the call will be billed.

        Returns: the claim with its reservation; why it got none; None if the claim is lost.
        Raises: StoreUnavailable.
        """
        quoted = quote(claim, tariff)
        if isinstance(quoted, Objection):
            return quoted
        model = self.api_model(claim.model)
        if not self.lockout.admits(model):
            if self.lockout.probes(model):
                return NotYet(PROBE_PAUSE_S)
            return Objection("overflow_unavailable", "The paid API has locked us out for now.")
        tokens = claim.prompt_tokens + claim.sampling.most_tokens
        if delay_s := self.pacer.wait(model, claim.request_id, tokens):
            self.not_called(claim)
            return NotYet(delay_s)
        try:
            self._shared.ask(reserving := _Reserving(claim, quoted.most_usd))
            outcome = reserving.result()
        except StoreUnavailable:
            self.not_called(claim)
            raise
        if isinstance(outcome, Claim):
            return outcome
        self.not_called(claim)
        return None if outcome is None else Objection.of(outcome)

    def _reserve_all(self, asked: Sequence[_Reserving]) -> Sequence[Claim | Lack | None]:
        with self.store.begin() as db:
            made = store.attempts.reserve_all(db, [(each.claim, each.usd) for each in asked], self.configured)
        return [made.get(each.claim.job_id) for each in asked]
