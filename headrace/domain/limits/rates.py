"""What is left of a rate limit: of an app's limit in Headrace, and of the operator's limit at a provider.

Each is a tuple, so that an error can carry it as plain numbers.
"""

from typing import NamedTuple, Self

MINUTE_S = 60.0


class RateLeft(NamedTuple):
    """One rate of an app right after a request: a token bucket.

    Attributes:
        limit: per minute.
        holds_s: the bucket's capacity: what the rate fills in so many seconds.
    """

    limit: int
    left: int
    holds_s: float = MINUTE_S

    @property
    def full_in_s(self) -> float:
        """Seconds until the bucket is full again."""
        return self.holds_s - self.left / self.limit * MINUTE_S


class RatesLeft(NamedTuple):
    """The rates of an app; None where it has no limit of its own, or the answer is not about it."""

    requests: RateLeft | None = None
    tokens: RateLeft | None = None
    calls: RateLeft | None = None

    @classmethod
    def of(cls, numbers: tuple[tuple[int, int, float] | None, ...]) -> Self:
        """Read the rates from an error's plain numbers."""
        return cls(*(each and RateLeft._make(each) for each in numbers))


NO_RATES = RatesLeft()


class ProviderRate(NamedTuple):
    """One rate limit of the operator's account, as a provider's answer reported it.

    Attributes:
        limit: the capacity of the provider's bucket.
        full_in_s: seconds until the bucket is full again if no more is used.
    """

    limit: int
    left: int
    full_in_s: float


class ProviderRates(NamedTuple):
    """Both rates at a provider; None where the provider does not report one.

    Attributes:
        said_at: when the provider reported them, by `time.monotonic`.
    """

    said_at: float
    requests: ProviderRate | None = None
    tokens: ProviderRate | None = None

    @classmethod
    def of(cls, numbers: tuple[float, tuple[int, int, float] | None, tuple[int, int, float] | None]) -> Self:
        """Read the rates from an error's plain numbers."""
        said_at, *rates = numbers
        return cls(said_at, *(each and ProviderRate._make(each) for each in rates))
