"""The season: how demand went on past days of the same kind, working days or weekends.

The forecast goes by the ratio of two rates of the season, not by the rates: a week with half the load keeps its shape.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from statistics import median

from headrace.domain.scaling import Season

#: A day has so many slots: 10 minutes each.
SLOTS = 144
SLOT_S = 86_400 / SLOTS
#: So many past days of a kind make its profile.
DAYS = 5
#: A day counts if this share of it was observed.
WHOLE_DAY = 0.9
#: How far a season looks ahead; decisions need four times the provisioning time.
REACH_S = 7_200.0
#: The ratio of two rates of a season is at least and at most this.
LEAST_RATIO, MOST_RATIO = 0.25, 4.0
#: This share of the season's highest rate is added to both rates of a ratio, so that a quiet night makes no huge ones.
RATIO_FLOOR = 0.01

#: What was offered: the start, its length in seconds, the tokens.
Offered = tuple[datetime, float, float]


def ratio(season: Season, ahead_s: float) -> float:
    """By which factor the season changes from now to then."""
    floor = RATIO_FLOOR * max(season.rates, default=0.0)
    if floor <= 0:
        return 1.0
    change = (_rate(season, ahead_s) + floor) / (season.rates[0] + floor)
    return min(max(change, LEAST_RATIO), MOST_RATIO)


def _rate(season: Season, ahead_s: float) -> float:
    """The season's rate then, between two steps in proportion; beyond the last step, the last rate."""
    place = min(max(ahead_s / season.step_s, 0.0), len(season.rates) - 1.0)
    before = math.floor(place)
    after = min(before + 1, len(season.rates) - 1)
    return season.rates[before] + (season.rates[after] - season.rates[before]) * (place - before)


@dataclass(frozen=True, slots=True)
class DayProfiles:
    """A working day and a day of the weekend, as the median of the last ones.

    Attributes:
        zone: the time zone in which days begin.
        of_kind: tokens per second by slot of the day; without the kinds of which no whole day was seen. The key says
            whether it is the weekend.
    """

    zone: tzinfo
    of_kind: dict[bool, tuple[float, ...]]

    @classmethod
    def of(cls, offered: Sequence[Offered], now: datetime, zone: tzinfo = UTC) -> "DayProfiles":
        """The profiles of the whole days before today.

        Args:
            offered: in any order; a span longer than a slot is spread evenly over the slots that it covers.
        """
        days = _days(offered, zone)
        today = now.astimezone(zone).date()
        profiles: dict[bool, tuple[float, ...]] = {}
        for weekend in (False, True):
            whole = [day for day in days if day < today and _is_weekend(day) is weekend and days[day].is_whole]
            last = [days[day].rates() for day in sorted(whole)[-DAYS:]]
            if last:
                profiles[weekend] = _medians(last)
        return cls(zone, profiles)

    def season(self, now: datetime, reach_s: float = REACH_S) -> Season | None:
        """The rates from now on. None if no whole day of today's kind was seen."""
        own = self.of_kind.get(_is_weekend(now.astimezone(self.zone).date()))
        if own is None:
            return None
        steps = math.ceil(reach_s / SLOT_S) + 1
        times = (now + timedelta(seconds=step * SLOT_S) for step in range(steps))
        return Season(SLOT_S, tuple(self._rate(at.astimezone(self.zone), own) for at in times))

    def _rate(self, local: datetime, own: tuple[float, ...]) -> float:
        """The rate at a local time, between the middles of two slots in proportion."""
        rates = self.of_kind.get(_is_weekend(local.date()), own)
        place = (local.hour * 3600 + local.minute * 60 + local.second) / SLOT_S - 0.5
        before = math.floor(place)
        share = place - before
        return rates[before % SLOTS] * (1 - share) + rates[(before + 1) % SLOTS] * share


class _Day:
    """What was offered on one day, by slot."""

    def __init__(self) -> None:
        self.tokens = [0.0] * SLOTS
        self.seconds = [0.0] * SLOTS

    @property
    def is_whole(self) -> bool:
        return sum(self.seconds) >= WHOLE_DAY * 86_400

    def rates(self) -> list[float | None]:
        """The rate of each slot; None where nothing was observed."""
        return [t / s if s > 0 else None for t, s in zip(self.tokens, self.seconds, strict=True)]


def _days(offered: Sequence[Offered], zone: tzinfo) -> dict[date, _Day]:
    days: defaultdict[date, _Day] = defaultdict(_Day)
    for start, seconds, tokens in offered:
        parts = max(1, math.ceil(seconds / SLOT_S - 1e-6))
        for part in range(parts):
            middle = (start + timedelta(seconds=seconds * (part + 0.5) / parts)).astimezone(zone)
            slot = int((middle.hour * 3600 + middle.minute * 60 + middle.second) / SLOT_S)
            day = days[middle.date()]
            day.tokens[slot] += tokens / parts
            day.seconds[slot] += seconds / parts
    return dict(days)


def _medians(days: Sequence[Sequence[float | None]]) -> tuple[float, ...]:
    """The median of each slot over the days. A slot that no day observed is as the one before."""
    found = [[rate for rate in rates if rate is not None] for rates in zip(*days, strict=True)]
    first = next(median(rates) for rates in found if rates)
    medians: list[float] = []
    for rates in found:
        before = medians[-1] if medians else first
        medians.append(median(rates) if rates else before)
    return tuple(medians)


def _is_weekend(day: date) -> bool:
    return day.weekday() >= 5
