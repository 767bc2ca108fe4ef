"""What is left of a rate: of an app's minute here, and of our account's at a provider.

Each is a tuple, so that an error carries it as plain numbers.
"""

from typing import NamedTuple, Self

MINUTE_S = 60.0


class RateLeft(NamedTuple):
    """One rate of an app right after a request: a bucket that holds a minute's worth and fills as the minute passes."""

    limit: int
    left: int

    @property
    def full_in_s(self) -> float:
        """Seconds until nothing of it is used up any more."""
        return (self.limit - self.left) / self.limit * MINUTE_S


class RatesLeft(NamedTuple):
    """Both rates; None where the app has no limit of its own."""

    requests: RateLeft | None = None
    tokens: RateLeft | None = None

    @classmethod
    def of(cls, numbers: tuple[tuple[int, int] | None, tuple[int, int] | None]) -> Self:
        """The rates that an error carries."""
        return cls(*(each and RateLeft(*each) for each in numbers))


NO_RATES = RatesLeft()


class ProviderRate(NamedTuple):
    """One rate of our account at a provider, as an answer of its said.

    Attributes:
        limit: so much it holds when nothing is used up.
        full_in_s: seconds until nothing of it is used up any more, if no more is used.
    """

    limit: int
    left: int
    full_in_s: float


class ProviderRates(NamedTuple):
    """Both rates; None where the provider does not say.

    Attributes:
        said_at: when it said so, on `time.monotonic`.
    """

    said_at: float
    requests: ProviderRate | None = None
    tokens: ProviderRate | None = None

    @classmethod
    def of(cls, numbers: tuple[float, tuple[int, int, float] | None, tuple[int, int, float] | None]) -> Self:
        """The rates that an error carries."""
        said_at, *rates = numbers
        return cls(said_at, *(each and ProviderRate(*each) for each in rates))
