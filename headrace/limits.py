"""What is left of a rate: of an app's minute here, and of ours at a provider. Pure nouns."""

from dataclasses import dataclass

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class RateLeft:
    """One rate of an app right after a request: a bucket that holds a minute's worth and fills as the minute passes."""

    limit: int
    left: int

    @property
    def full_in_s(self) -> float:
        """Seconds until nothing of it is used up any more."""
        return (self.limit - self.left) / self.limit * MINUTE_S


@dataclass(frozen=True, slots=True)
class RatesLeft:
    """Both rates; None where the app has no limit of its own."""

    requests: RateLeft | None = None
    tokens: RateLeft | None = None


NO_RATES = RatesLeft()


@dataclass(frozen=True, slots=True)
class ProviderRate:
    """One rate of our account at a provider, as an answer of its said.

    Attributes:
        limit: so much it holds when nothing is used up.
        full_in_s: seconds until nothing of it is used up any more, if no more is used.
    """

    limit: int
    left: int
    full_in_s: float


@dataclass(frozen=True, slots=True)
class ProviderRates:
    """Both rates; None where the provider does not say.

    Attributes:
        said_at: when it said so, on `time.monotonic`.
    """

    said_at: float
    requests: ProviderRate | None = None
    tokens: ProviderRate | None = None
