"""Whether a failed attempt is tried again, and when. Pure."""

from dataclasses import dataclass

from headrace.errors import HeadraceError

#: Pause before the second attempt, doubled for each further one.
FIRST_DELAY_S = 1.0
MAX_DELAY_S = 60.0
#: The longest that a webhook's receiver can put a try off: a day, as long as the schedule's own last pause.
PATIENCE_LIMIT_S = 86_400


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Try again after this many seconds."""

    delay_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The job has failed."""

    reason: str


def decide(error: HeadraceError, attempt: int, max_attempts: int) -> RetryIn | GiveUp:
    """What becomes of a job whose attempt number `attempt` (from 1) met `error`."""
    if not error.retryable:
        return GiveUp(f"{error.code} cannot succeed later")
    if attempt >= max_attempts:
        return GiveUp(f"attempt {attempt} of {max_attempts} was the last")
    return RetryIn(min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** (attempt - 1)), f"attempt {attempt} of {max_attempts}")


def next_delivery_delay_s(tries: int, delays_s: tuple[float, ...], retry_after_s: int | None) -> float | None:
    """Seconds until a webhook's next try, after `tries` of them failed; None when it was the last.

    A receiver that asks for more patience gets it, within reason.
    """
    if tries > len(delays_s):
        return None
    return max(delays_s[tries - 1], float(min(retry_after_s or 0, PATIENCE_LIMIT_S)))
