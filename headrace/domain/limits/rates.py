"""What is left of a rate limit: of an app's limit in Headrace, and of the operator's limit at a provider.

Each is a tuple, so that an error can carry it as plain numbers.
"""

from typing import NamedTuple, Self

MINUTE_S = 60.0


class RateLeft(NamedTuple):
    """One rate of an app right after a request: a token bucket with the capacity of one minute."""

    limit: int
    left: int

    @property
    def full_in_s(self) -> float:
        """Seconds until the bucket is full again."""
        return (self.limit - self.left) / self.limit * MINUTE_S


class RatesLeft(NamedTuple):
    """Both rates of an app; None where the app has no limit of its own."""

    requests: RateLeft | None = None
    tokens: RateLeft | None = None

    @classmethod
    def of(cls, numbers: tuple[tuple[int, int] | None, tuple[int, int] | None]) -> Self:
        """Read the rates from an error's plain numbers."""
        return cls(*(each and RateLeft(*each) for each in numbers))


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
        return cls(said_at, *(each and ProviderRate(*each) for each in rates))
