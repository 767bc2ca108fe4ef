"""Whether and when a failed attempt is tried again, and from where. Pure except for randomness and the clock."""

import random
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isfinite

from headrace.domain.prompts import EXTRA_OF_WHOLE_ANSWERS, Sampling, extra_in_use
from headrace.errors import EngineError

#: Pause before the second attempt; it doubles for each further attempt.
FIRST_DELAY_S = 1.0
MAX_DELAY_S = 60.0
#: The longest pause that a webhook's receiver can ask for: one day, like the last pause of the default schedule.
PATIENCE_LIMIT_S = 86_400.0


@dataclass(frozen=True, slots=True)
class RetryRules:
    """The bounds on a worker's jobs: counted attempts of each, and the pools that only the paid API serves."""

    max_attempts: int
    paid_pools: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Try again after this many seconds."""

    delay_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: str


def jitter() -> float:
    """A random share that lengthens a pause, so that what failed together does not retry together."""
    return random.uniform(0, 0.25)


def backoff_s(tries: int) -> float:
    """The pause after this many tries, in seconds. It doubles with each try, up to `MAX_DELAY_S`."""
    return min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(tries - 1, 10))


def decide(error: EngineError, attempt: int, max_attempts: int, longer: float = 0.0) -> RetryIn | GiveUp:
    """Decide about a job whose attempt number `attempt` (from 1) failed with `error`.

    Args: longer: the share that lengthens the pause; see `jitter`.
    """
    if not error.retryable:
        return GiveUp(f"{error.code} cannot succeed later")
    if attempt >= max_attempts:
        return GiveUp(f"attempt {attempt} of {max_attempts} was the last")
    delay_s = max(backoff_s(attempt), error.retry_after_s or 0.0)
    return RetryIn(delay_s * (1 + longer), f"attempt {attempt} of {max_attempts}")


def is_continuable(text: str, sampling: Sampling) -> bool:
    """Whether an engine that gets `text` as the beginning of the answer can continue it correctly."""
    if sampling.n > 1:
        return False  # The text is that of all answers.
    if sampling.response_format is not None and sampling.response_format.get("type") != "text":
        return False  # The engine would apply the constraint to the continuation alone.
    if sampling.tools is not None:
        return False  # A parser reads calls from the beginning of the answer on.
    if not extra_in_use(sampling.extra).keys().isdisjoint(EXTRA_OF_WHOLE_ANSWERS):
        return False
    # The engine would see only the end of a stop string that begins inside the text, and would miss it.
    return not any(text.endswith(stop[:length]) for stop in sampling.stop for length in range(1, len(stop)))


def asked_wait_s(retry_after: str) -> float | None:
    """How long a server asks callers to wait, in seconds, at least 0; None if its Retry-After cannot be read.

    Source: RFC 9110, section 10.2.3: seconds or a date.
    """
    for read in (float, _from_now):
        with suppress(ValueError, OverflowError):
            if isfinite(seconds := read(retry_after)):
                return max(0.0, seconds)
    return None


def _from_now(date: str) -> float:
    """Seconds from now until an HTTP date. Raises: ValueError, OverflowError."""
    when = parsedate_to_datetime(date)
    # All three date forms are in UTC, but one of them names no zone.
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - time.time()


def next_delivery_delay_s(
    tries: int, delays_s: tuple[float, ...], retry_after_s: float | None, longer: float = 0.0
) -> float | None:
    """Seconds until a webhook's next try, after `tries` failed tries; None if that was the last.

    A receiver's Retry-After lengthens the pause, up to `PATIENCE_LIMIT_S`.

    Args: longer: the share that lengthens the pause, so that deliveries do not all hit a returning receiver at once;
        see `jitter`.
    """
    if tries > len(delays_s):
        return None
    return max(delays_s[tries - 1], min(retry_after_s or 0.0, PATIENCE_LIMIT_S)) * (1 + longer)


# An app is confined if its prompts have killed engines of a pool, and it keeps sending new ones.

#: Poison prompts of one app in one pool, and the seconds within which they confine it there. One may be an accident.
STRIKES, WITHIN_S = 2, 3600.0
#: The pause before the app's next job in the pool, in seconds, after its first strike beyond `STRIKES`. It doubles with
#: each further one, so that an hour has room for about eight strikes.
FIRST_PAUSE_S = 60.0
#: Waiting jobs of a confined app beyond which the pool refuses more. They end slowly, and the rest would expire.
MOST_HELD = 100
#: The `route_reason` of a job that waited because its app is confined begins with this.
CONFINED = "confined: "


@dataclass(frozen=True, slots=True)
class Confine:
    """Run the app's jobs of the pool one at a time for `for_s` seconds, the next one after `pause_s`."""

    for_s: float
    pause_s: float
    reason: str


def confinement(strikes: int, confine_s: float) -> Confine | None:
    """Whether to confine the app.

    Args:
        strikes: its poison prompts in this pool within `WITHIN_S`, the one that has just killed an engine included.
        confine_s: how long to confine it; 0: never.
    """
    if strikes < STRIKES or confine_s <= 0:
        return None
    further = strikes - STRIKES
    pause_s = min(confine_s, FIRST_PAUSE_S * 2.0 ** min(further - 1, 20)) if further else 0.0
    return Confine(confine_s, pause_s, f"{strikes} of its prompts killed engines within an hour")
