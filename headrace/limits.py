"""What an app has left of its minute. A pure noun."""

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
