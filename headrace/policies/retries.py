"""Whether a failed attempt is tried again, when, and from where. Pure, but for chance and the clock."""

import random
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isfinite

from headrace.domain.prompts import Sampling
from headrace.errors import EngineError

#: Pause before the second attempt, doubled for each further one.
FIRST_DELAY_S = 1.0
MAX_DELAY_S = 60.0
#: The longest that a webhook's receiver can put a try off: a day, as long as the schedule's own last pause.
PATIENCE_LIMIT_S = 86_400.0


@dataclass(frozen=True, slots=True)
class RetryRules:
    """What bounds the attempts of a worker's jobs.

    Attributes:
        max_attempts: that are counted, of each job.
        paid_pools: those that the paid API alone answers.
    """

    max_attempts: int
    paid_pools: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Try again after this many seconds."""

    delay_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The job has failed."""

    reason: str


def jitter() -> float:
    """A share to lengthen a pause by, so that those who failed together do not come back together."""
    return random.uniform(0, 0.25)


def backoff_s(tries: int) -> float:
    """The pause after so many tries, in seconds: twice as long each time."""
    return min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(tries - 1, 10))


def decide(error: EngineError, attempt: int, max_attempts: int, longer: float = 0.0) -> RetryIn | GiveUp:
    """What becomes of a job whose attempt number `attempt` (from 1) met `error`.

    Args:
        longer: the share by which the pause is longer; see `jitter`.
    """
    if not error.retryable:
        return GiveUp(f"{error.code} cannot succeed later")
    if attempt >= max_attempts:
        return GiveUp(f"attempt {attempt} of {max_attempts} was the last")
    delay_s = max(backoff_s(attempt), error.retry_after_s or 0.0)
    return RetryIn(delay_s * (1 + longer), f"attempt {attempt} of {max_attempts}")


def is_continuable(text: str, sampling: Sampling) -> bool:
    """Whether an answer that begins with `text` can be gone on with by an engine that sees the text as given."""
    if sampling.response_format is not None and sampling.response_format.get("type") != "text":
        return False  # The constraint would be put on the rest alone.
    # Of a stop string that begins inside the text, the engine would see the end only.
    return not any(text.endswith(stop[:length]) for stop in sampling.stop for length in range(1, len(stop)))


def asked_wait_s(retry_after: str) -> float | None:
    """How long a server asks to be left alone, in seconds and at least 0; None when its Retry-After says nothing.

    Source: RFC 9110, section 10.2.3: seconds or a date.
    """
    for read in (float, _from_now):
        with suppress(ValueError, OverflowError):
            if isfinite(seconds := read(retry_after)):
                return max(0.0, seconds)
    return None


def _from_now(date: str) -> float:
    """Raises: ValueError, OverflowError."""
    when = parsedate_to_datetime(date)
    # One of the three forms names no zone: all are in UTC.
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - time.time()


def next_delivery_delay_s(
    tries: int, delays_s: tuple[float, ...], retry_after_s: float | None, longer: float = 0.0
) -> float | None:
    """Seconds until a webhook's next try, after `tries` of them failed; None when it was the last.

    A receiver that asks for more patience gets it, within reason.

    Args:
        longer: the share by which the pause is longer, so that a receiver that was away is not met by all that waits
            for it at once; see `jitter`.
    """
    if tries > len(delays_s):
        return None
    return max(delays_s[tries - 1], min(retry_after_s or 0.0, PATIENCE_LIMIT_S)) * (1 + longer)
