"""When a process that ended is started again. Pure: knows no process and no clock."""

from dataclasses import dataclass

#: A life at least this long wipes the slate clean.
STEADY_S = 30.0
FIRST_DELAY_S = 0.25
MAX_DELAY_S = 30.0


@dataclass(frozen=True, slots=True)
class Restart:
    """What to do about a process that ended.

    Attributes:
        failures: short lives in a row, this one included.
        delay_s: when to try again; None to give up.
    """

    failures: int
    delay_s: float | None


def decide(failures: int, ran_s: float, give_up_after: int | None) -> Restart:
    """Double the pause with each short life in a row.

    Args:
        failures: short lives in a row before this one.
        ran_s: how long this life was.
        give_up_after: short lives in a row that are one too many; None to try for ever.
    """
    failures = 1 if ran_s >= STEADY_S else failures + 1
    if give_up_after is not None and failures >= give_up_after:
        return Restart(failures, None)
    # The exponent is bounded because 2.0 ** 1024 overflows.
    return Restart(failures, min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, 16)))
