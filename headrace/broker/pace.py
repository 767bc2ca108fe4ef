"""The pace of calls to a provider, shared by all who call it: what it allows, as its answers said. The face of
`lua/pace_*.lua`.

A wiped Redis forgets it: then nothing is known, nobody waits, and the next answer says it again.
"""

import math
import time
from dataclasses import dataclass
from importlib.resources import files

from redis import Redis, RedisError

from headrace.domain.queues import KEY_PREFIX
from headrace.domain.rates import ProviderRates
from headrace.errors import BrokerUnavailable

#: How long it is known after an answer last said it, in seconds: longer than most rates take to fill up.
KEEP_S = 3600

#: How long a call may take from here to the provider's count of it, in seconds.
ON_ITS_WAY_S = 0.25


@dataclass(slots=True)
class Headroom:
    """What calls of one model may take at once; `inf` where nobody has said a rate.

    Attributes:
        most_tokens: that there can be: a call that is larger goes when there are as many.
    """

    calls: float
    tokens: float
    most_tokens: float

    def has(self, tokens: int) -> bool:
        """Whether there is room for one more call."""
        return self.calls >= 1 and self.tokens >= min(tokens, self.most_tokens)

    def take(self, tokens: int, calls: int = 1) -> None:
        """Count calls that will be made, of so many tokens together."""
        self.calls -= calls
        self.tokens -= tokens


class Pace:
    """Counts calls against a provider's rates. Safe for many threads, and many processes."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        scripts = files("headrace.broker") / "lua"
        self._ask, self._hear, self._left = (
            redis.register_script((scripts / f"pace_{name}.lua").read_text()) for name in ("ask", "hear", "left")
        )

    def ask(self, model: str, call: str, tokens: int) -> float:
        """Seconds until there is room for one more call, which is counted when they are 0.

        Args:
            model: the provider's own name for it: each has rates of its own.
            call: tells it from all others.
            tokens: of its prompt, and the most of its answer, as providers count a call that begins.
        Raises: BrokerUnavailable.
        """
        try:
            return int(self._ask(_keys(model), [call, tokens, KEEP_S])) / 1000
        except RedisError as error:
            raise BrokerUnavailable(f"Redis does not answer: {error}") from error

    def left(self, model: str) -> Headroom:
        """What calls of this model may take now; nothing is counted. Raises: BrokerUnavailable."""
        try:
            calls, tokens, most_tokens = (math.inf if each is None else each for each in self._left(_keys(model)))
        except RedisError as error:
            raise BrokerUnavailable(f"Redis does not answer: {error}") from error
        return Headroom(calls, tokens, most_tokens)

    def hear(self, model: str, rates: ProviderRates, hold_s: float = 0.0) -> None:
        """An answer said what is left.

        Args:
            hold_s: how long it asked to be left alone, whatever is left.
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
