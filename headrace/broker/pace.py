"""The pace of calls to a provider: the rate limits that its answers report, shared by all workers that call it.

Calls `lua/*_pace.lua`. A wiped Redis loses the limits: no call then waits until the next answer reports them again.
"""

import math
import time
from dataclasses import dataclass
from importlib.resources import files

from redis import Redis, RedisError

from headrace.domain.limits.rates import ProviderRates
from headrace.domain.queues import KEY_PREFIX
from headrace.errors import BrokerUnavailable

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
        self._redis = redis
        scripts = files("headrace.broker") / "lua"
        self._ask, self._hear, self._left = (
            redis.register_script((scripts / f"{name}_pace.lua").read_text()) for name in ("ask", "hear", "left")
        )

    def ask(self, model: str, call: str, tokens: int) -> float:
        """Seconds until the rates have room for this call. If 0, the call is counted and may be made.

        Args:
            model: the provider's name of the model; each model has its own rates.
            call: a unique id of the call.
            tokens: the prompt's tokens plus `max_tokens`, as providers count a call at its start.
        Raises: BrokerUnavailable.
        """
        try:
            return int(self._ask(_keys(model), [call, tokens, KEEP_S])) / 1000
        except RedisError as error:
            raise BrokerUnavailable(f"Redis does not answer: {error}") from error

    def left(self, model: str) -> Headroom:
        """What calls of this model may use now; counts nothing. Raises: BrokerUnavailable."""
        try:
            calls, tokens, most_tokens = (math.inf if each is None else each for each in self._left(_keys(model)))
        except RedisError as error:
            raise BrokerUnavailable(f"Redis does not answer: {error}") from error
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
        try:
            self._hear(_keys(model), arguments)
        except RedisError as error:
            raise BrokerUnavailable(f"Redis does not answer: {error}") from error


def _keys(model: str) -> list[str]:
    return [f"{KEY_PREFIX}pace:{model}", f"{KEY_PREFIX}pace_asked:{model}"]
