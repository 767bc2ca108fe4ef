"""The paid API's calls: whether one may be made now, how fast, and with what money.

`Breaker` and `Lockout` keep calls from an API that refuses the account or a model. `Pacer` keeps them to the rates of
the account. `Payer` asks both, and reserves the money.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from headrace.broker.rates import Pace
from headrace.domain.attempts import ApiTier, AttemptEnd, Claim
from headrace.domain.limits import Cost, Limits, ProviderRates
from headrace.domain.queues import Lane
from headrace.errors import (
    BrokerUnavailable,
    EngineBusy,
    EngineError,
    EngineUnavailable,
    ModelUnavailable,
    PromptRejected,
    StoreUnavailable,
)
from headrace.policies.overflow import Objection, quote
from headrace.policies.pricing import Tariff
from headrace.store import Store, attempts
from workers.engines.base import Generation

log = logging.getLogger(__name__)

#: Seconds for which it stays open after the first failure, doubled with each failed probe, up to `MOST_S`.
FIRST_S = 10.0
MOST_S = 600.0


class Breaker:
    """A circuit breaker: after a lasting failure it admits no calls for a while, and then one probe.

    Closed while all is well; open after a failure; half-open when its time is over. Safe for many threads.
    Source of the pattern: Nygard, "Release It!", 2007.
    """

    def __init__(self, probe_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start closed.

        Args: probe_s: seconds after which a probe without an outcome counts as lost, and another is admitted.
        """
        self._probe_s, self._clock = probe_s, clock
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until = 0.0
        #: When a running probe counts as lost; None without a probe.
        self._probe_until: float | None = None

    @property
    def is_closed(self) -> bool:
        return self._failures == 0

    @property
    def is_open(self) -> bool:
        """True while no call is admitted: its time is not over, or a probe is running."""
        with self._lock:
            return not self.is_closed and self._clock() < max(self._open_until, self._probe_until or 0.0)

    @property
    def is_probing(self) -> bool:
        """True while a probe is running, so its outcome comes soon."""
        with self._lock:
            return self._probe_until is not None and self._clock() < self._probe_until

    def admits(self) -> bool:
        """True if another call may be made now. A half-open breaker admits only one call, the probe."""
        with self._lock:
            now = self._clock()
            if self.is_closed:
                return True
            if now < max(self._open_until, self._probe_until or 0.0):
                return False
            self._probe_until = now + self._probe_s
            return True

    def succeeded(self) -> bool:
        """Note a success. Returns: True when it closed the breaker."""
        with self._lock:
            # A call that began before the breaker opened does not show that the failure has passed.
            if self.is_closed or self._probe_until is None:
                return False
            self._failures, self._probe_until = 0, None
            return True

    def failed(self) -> bool:
        """Note a failure. Returns: True when it opened the breaker."""
        with self._lock:
            was_closed = self.is_closed
            if was_closed or self._probe_until is not None:
                self._failures += 1
                self._open_until = self._clock() + min(MOST_S, FIRST_S * 2 ** min(self._failures - 1, 10))
                self._probe_until = None
            return was_closed

    def is_unsure(self) -> None:
        """Note a call that shows neither success nor failure: another probe may be made."""
        with self._lock:
            self._probe_until = None


class Lockout:
    """The API's lock-outs: a breaker for the whole account, and one for each model. Safe for many threads."""

    def __init__(self, models: Collection[str], in_use: Collection[str], make: Callable[[], Breaker]) -> None:
        """Start with all breakers closed.

        Args:
            models: all models that may be called.
            in_use: the models that are called for new jobs. While all of these are locked out, the API is of no use.
                Empty where all pools serve embeddings.
        """
        self._account = make()
        self._models = {model: make() for model in models}
        self._in_use = [self._models[model] for model in in_use]

    @property
    def is_open(self) -> bool:
        """True while the account, or every model in use, is locked out."""
        are_open = [each.is_open for each in self._in_use]
        return self._account.is_open or (bool(are_open) and all(are_open))

    @property
    def is_probing(self) -> bool:
        """True while no call is admitted but a probe is running, so its outcome comes soon."""
        probes = (each.is_probing for each in (self._account, *self._models.values()))
        return self.is_open and any(probes)

    def probes(self, model: str) -> bool:
        """True while a running probe decides whether calls of this model are admitted."""
        return self._account.is_probing or self._models[model].is_probing

    def admits(self, model: str) -> bool:
        """True if another call of this model may be made now; see `Breaker.admits`."""
        if not self._account.admits():
            return False
        is_admitted = self._models[model].admits()
        if not is_admitted:
            self._account.is_unsure()
        return is_admitted

    def succeeded(self, model: str) -> bool:
        """Note a successful call of this model. Returns: True when it closed a breaker."""
        return self._account.succeeded() | self._models[model].succeeded()

    def account_failed(self, model: str) -> bool:
        """Note that a call of this model met the account's lock-out. Returns: True when it opened that breaker."""
        self._models[model].is_unsure()
        return self._account.failed()

    def model_failed(self, model: str) -> bool:
        """Note that the account may not use this model. Returns: True when it opened the model's breaker."""
        self._account.is_unsure()
        return self._models[model].failed()

    def is_unsure(self, model: str) -> None:
        """Note a call of this model that was not made, or that shows neither success nor lock-out."""
        self._account.is_unsure()
        self._models[model].is_unsure()


#: Seconds that a call may wait in its slot.
HELD_S = 5.0
#: The most seconds for which a job is put off and the worker takes no more. After that it asks again, because other
#: workers may have used less than expected.
LONGEST_PAUSE_S = 60.0


class Pacer:
    """Paces one worker's calls to the rates that the provider allows all workers together. Safe for many threads.

    A call that comes too early waits in its slot for a moment. Meanwhile the worker takes no more jobs, so they wait in
    their queues, in the order of their lanes. A job that would have to wait for long is handed back.
    """

    def __init__(
        self,
        pace: Pace,
        reopened: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        longest_closed_s: float = LONGEST_PAUSE_S,
    ) -> None:
        """Start without a waiting call.

        Args:
            reopened: called when no call waits any more.
            longest_closed_s: the most seconds for which the worker takes no jobs after one was handed back. Jobs of
                other models wait as long, although those have their own rates.
        """
        self._longest_closed_s = longest_closed_s
        self._pace, self._reopened, self._clock, self._sleep = pace, reopened, clock, sleep
        self._lock = threading.Lock()
        self._waiting = 0
        self._closed_until = 0.0

    @property
    def is_open(self) -> bool:
        """False while another call would have to wait."""
        with self._lock:
            return self._waiting == 0 and self._clock() >= self._closed_until

    def wait(self, model: str, call: str, tokens: int) -> float:
        """Wait until the call may be made; see `Pace.ask`.

        Returns: 0 when it may be made. If it would wait too long in its slot: the seconds after which to ask again.
        """
        wait_s = self._ask(model, call, tokens)
        if wait_s == 0:
            return 0.0
        until = self._clock() + HELD_S
        with self._waits():
            while 0 < wait_s <= until - self._clock():
                self._sleep(wait_s)
                wait_s = self._ask(model, call, tokens)
        pause_s = min(wait_s, LONGEST_PAUSE_S)
        if pause_s > 0:
            with self._lock:
                self._closed_until = max(self._closed_until, self._clock() + min(pause_s, self._longest_closed_s))
        return pause_s

    @contextmanager
    def _waits(self) -> Iterator[None]:
        with self._lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                was_last = self._waiting == 0
            if was_last:
                self._reopened()

    def hear(self, model: str, rates: ProviderRates | None, hold_s: float | None) -> None:
        """Note the rates that an answer reported, if any; see `Pace.hear`."""
        if rates is None:
            return
        try:
            self._pace.hear(model, rates, hold_s or 0.0)
        except BrokerUnavailable as error:
            log.warning("pace_not_heard", extra={"model": model, "error": str(error)})

    def _ask(self, model: str, call: str, tokens: int) -> float:
        try:
            return self._pace.ask(model, call, tokens)
        except BrokerUnavailable as error:
            # The provider itself still refuses calls above its rates.
            log.warning("pace_not_asked", extra={"model": model, "error": str(error)})
            return 0.0


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


@dataclass(slots=True)
class Payer:
    """Decides whether the API may answer a job now: its owner allows it, the price is known, the budgets suffice.

    Attributes:
        api_model: the paid model that answers a job of a model.
        configured: the limits in the settings for all apps together. Stored limits win.
        lockout: the API's lock-outs, of the account (no money, or no valid key) or of single models.
        pacer: keeps the calls to the account's rates.
    """

    store: Store
    api_model: Callable[[str], str]
    configured: Limits
    lockout: Lockout
    pacer: Pacer

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
            with self.store.begin() as db:
                made = attempts.reserve_all(db, [(claim, quoted.most_usd)], self.configured)
        except StoreUnavailable:
            self.not_called(claim)
            raise
        outcome = made.get(claim.job_id)
        if isinstance(outcome, Claim):
            return outcome
        self.not_called(claim)
        return None if outcome is None else Objection.of(outcome)
