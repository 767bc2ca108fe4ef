"""How much time the chart of `headrace scale` shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from headrace.store.fleet.observations import LoadSpan

#: A pool that was observed for less is shown in minutes.
YOUNG = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Frame:
    """The times of a chart.

    Attributes:
        past: the chart begins at least so long before now.
        whole: its length.
        span_s: the seconds that one mean of the past covers.
        column_min: the minutes of one column, the finest that fits. Every tenth column has a label: each half hour or
            hour, or each 5 or 10 minutes.
    """

    past: timedelta
    whole: timedelta
    span_s: float
    column_min: tuple[float, ...]

    @property
    def read(self) -> timedelta:
        """How far back to read: a chart begins on a label."""
        return self.past + self.whole / 6

    def start(self, now: datetime, column_min: float) -> datetime:
        """The chart's start, on a label in local time."""
        begin = (now - self.past).astimezone()
        over_min = (begin.hour * 60 + begin.minute) % (10 * column_min)
        return begin - timedelta(minutes=over_min, seconds=begin.second, microseconds=begin.microsecond)


HOURS = Frame(timedelta(hours=2), timedelta(hours=6), 180.0, (3.0, 6.0, 12.0, 18.0, 36.0))
MINUTES = Frame(timedelta(minutes=20), timedelta(hours=1), 30.0, (0.5, 1.0, 2.0, 3.0, 6.0))


def is_young(past: Sequence[LoadSpan], now: datetime) -> bool:
    """Whether the past of `HOURS` is too short for it."""
    return not past or now - past[0].at < YOUNG
