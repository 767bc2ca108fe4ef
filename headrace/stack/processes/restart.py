"""Decides when an ended process starts again. Pure: knows no process and no clock."""

from dataclasses import dataclass

#: A life of at least this many seconds resets the count of failures.
STEADY_S = 30.0
FIRST_DELAY_S = 0.25
MAX_DELAY_S = 30.0


@dataclass(frozen=True, slots=True)
class Restart:
    """The decision about an ended process.

    Attributes:
        failures: short lives in a row, this one included.
        delay_s: seconds until the next start; None to give up.
    """

    failures: int
    delay_s: float | None


def decide(failures: int, ran_s: float, give_up_after: int | None) -> Restart:
    """Double the pause with each short life in a row.

    Args:
        failures: short lives in a row before this one.
        ran_s: how long this life was.
        give_up_after: give up at this many short lives in a row; None to try forever.
    """
    failures = 1 if ran_s >= STEADY_S else failures + 1
    if give_up_after is not None and failures >= give_up_after:
        return Restart(failures, None)
    # The exponent is bounded because 2.0 ** 1024 overflows.
    return Restart(failures, min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, 16)))
