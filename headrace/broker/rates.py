"""Rates: what an app may ask for, and the pace that a provider allows, shared by all processes.

`lua/reserve.lua` counts all requests of apps that take a place, `lua/use.lua` the others. The pace of calls follows the
limits that a provider's answers report. A wiped Redis loses them: no call then waits until the next answer reports them
again.
"""

import math
import time
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from redis import Redis

from headrace.broker.scripts import answered, script
from headrace.domain.apps import AppLimits
from headrace.domain.limits import ProviderRates, RateLeft, RatesLeft
from headrace.domain.places import RateReason, Refusal
from headrace.domain.queues import KEY_PREFIX


class AppRates:
    """Reads and uses apps' request rates. Safe for many threads."""

    def __init__(self, redis: Redis) -> None:
        self._look, self._use = script(redis, "books", "look"), script(redis, "books", "use")

    def free_in_ms(self, app_id: UUID, requests_per_minute: int) -> int:
        """Milliseconds until the app may make one more request; 0 if it may now. Raises: BrokerUnavailable."""
        with answered():
            return int(self._look([KEY_PREFIX], [app_id.hex, requests_per_minute]))

    def use_request(self, app_id: UUID, limits: AppLimits, tokens: int = 0) -> RatesLeft | Refusal:
        """Count one request, and the tokens of its job. Raises: BrokerUnavailable."""
        reason, retry_in_ms, left = self._counted(app_id, limits, 1, tokens)
        return Refusal(reason, 0, 0, 0, left, retry_in_ms=retry_in_ms) if reason else left

    def return_request(self, app_id: UUID, limits: AppLimits) -> None:
        """Give back a request, of no tokens, that was counted and came to nothing. Raises: BrokerUnavailable."""
        self._counted(app_id, limits, -1, 0)

    def _counted(
        self, app_id: UUID, limits: AppLimits, number: int, tokens: int
    ) -> tuple[RateReason | Literal[""], int, RatesLeft]:
        caps = limits.requests_per_minute, limits.tokens_per_minute
        given: list[str | int] = [app_id.hex, *(-1 if cap is None else cap for cap in caps), number, tokens]
        with answered():
            reason, retry_in_ms, *left = self._use([KEY_PREFIX], given)
        requests, in_tokens = (RateLeft(cap, each) if cap else None for cap, each in zip(caps, left, strict=True))
        return reason, retry_in_ms, RatesLeft(requests, in_tokens)


#: How long a reported limit is kept, in seconds: longer than most rates take to fill up.
KEEP_S = 3600

#: How long a call may take from its start until the provider counts it, in seconds.
ON_ITS_WAY_S = 0.25


@dataclass(slots=True)
class Headroom:
    """What calls of one model may use now; `inf` for a rate that the provider has not reported.

    Attributes:
        most_tokens: the capacity of the token rate; a larger call goes when the full capacity is free.
    """

    calls: float
    tokens: float
    most_tokens: float

    def has(self, tokens: int) -> bool:
        """Whether there is room for one more call."""
        return self.calls >= 1 and self.tokens >= min(tokens, self.most_tokens)

    def take(self, tokens: int, calls: int = 1) -> None:
        """Count calls that will be made, with this many tokens together."""
        self.calls -= calls
        self.tokens -= tokens


class Pace:
    """Counts calls against a provider's rates. Safe for many threads and many processes."""

    def __init__(self, redis: Redis) -> None:
        self._ask, self._hear, self._left = (script(redis, f"{name}_pace") for name in ("ask", "hear", "left"))

    def ask(self, model: str, call: str, tokens: int) -> float:
        """Seconds until the rates have room for this call. If 0, the call is counted and may be made.

        Args:
            model: the provider's name of the model; each model has its own rates.
            call: a unique id of the call.
            tokens: the prompt's tokens plus `max_tokens`, as providers count a call at its start.
        Raises: BrokerUnavailable.
        """
        with answered():
            return int(self._ask(_keys(model), [call, tokens, KEEP_S])) / 1000

    def left(self, model: str) -> Headroom:
        """What calls of this model may use now; counts nothing. Raises: BrokerUnavailable."""
        with answered():
            calls, tokens, most_tokens = (math.inf if each is None else each for each in self._left(_keys(model)))
        return Headroom(calls, tokens, most_tokens)

    def hear(self, model: str, rates: ProviderRates, hold_s: float = 0.0) -> None:
        """Record the rates that an answer reported.

        Args:
            hold_s: how long the provider asked for no calls at all.
        Raises: BrokerUnavailable.
        """
        ago_ms = round((time.monotonic() - rates.said_at) * 1000)
        arguments: list[str | int] = [ago_ms, round(hold_s * 1000), KEEP_S, round(ON_ITS_WAY_S * 1000)]
        for kind, rate in (("requests", rates.requests), ("tokens", rates.tokens)):
            if rate is not None:
                arguments += (kind, rate.limit, rate.left, round(rate.full_in_s * 1000))
        with answered():
            self._hear(_keys(model), arguments)


def _keys(model: str) -> list[str]:
    return [f"{KEY_PREFIX}pace:{model}", f"{KEY_PREFIX}pace_asked:{model}"]
