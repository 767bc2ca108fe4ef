"""Whether a job may be answered by the paid API now: its owner's word, a known price, and money in the budgets."""

import logging
from dataclasses import dataclass

from headrace import store
from headrace.budgets import Limits
from headrace.errors import EngineError, EngineUnavailable, PromptRejected, StoreUnavailable, UnknownPrice
from headrace.jobs import Overflow
from headrace.pricing import Tariff
from headrace.store import Store
from headrace.store.attempts import Claim
from workers.breaker import Breaker

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a job is not for the paid API; `code` is the job's own, should it fail for this."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Purse:
    """Pays for calls.

    Attributes:
        together: the limits of all apps together.
        breaker: open while the API has locked us out: no money, or no valid key.
    """

    store: Store
    tariff: Tariff
    together: Limits
    breaker: Breaker

    def heard(self, error: EngineError | None) -> None:
        """What came of a call. Args: error: None for an answer."""
        if error is None or isinstance(error, PromptRejected):
            if self.breaker.succeeded():
                log.warning("overflow_is_back")
        elif isinstance(error, EngineUnavailable):
            if self.breaker.failed():
                log.error("overflow_is_locked_out", extra={"error": str(error)})
        else:
            self.breaker.is_unsure()

    def reserve(self, claim: Claim) -> Claim | Objection | None:
        """Set aside the most that a claim's call can cost.

        Returns: the claim with its money; why there is none; None when the claim holds no more.
        Raises: StoreUnavailable.
        """
        if claim.overflow is Overflow.NEVER:
            return Objection("overflow_not_allowed", "Its overflow is 'never'.")
        try:
            most_usd = self.tariff.ceiling_usd(claim.model, claim.messages, claim.sampling)
        except UnknownPrice as error:
            return Objection(error.code, str(error))
        if claim.max_cost_usd is not None and most_usd > claim.max_cost_usd:
            return Objection("too_dear", f"It may cost {most_usd:f} USD, more than its max_cost_usd.")
        if not self.breaker.admits():
            return Objection("overflow_unavailable", "The paid API has locked us out for now.")
        try:
            with self.store.begin() as db:
                outcome = store.attempts.reserve(db, claim, most_usd, self.together)
        except StoreUnavailable:
            self.breaker.is_unsure()
            raise
        if isinstance(outcome, Claim):
            return outcome
        # No call is made, which may have been the breaker's probe.
        self.breaker.is_unsure()
        return None if outcome is None else Objection("budget_exceeded", f"No money: {outcome}.")
