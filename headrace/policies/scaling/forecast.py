"""The forecast of a pool's demand: its level and trend now, its season, both at a time ahead, and how far off it was.

Every estimate grows with the newest observations, and in proportion if all observations grow in proportion. So more
demand never leads to fewer hosts.
"""

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist, fmean, median

from headrace.config import ScalingSettings
from headrace.domain.scaling import DemandHistory, ErrorProfile, Moment, Season

#: The window is divided into this number of bins: of 10 minutes, each has 30 s.
BINS = 20
#: The newest bins that make up the level, 4 minutes, and those that make up the last minute.
LEVEL_BINS, LAST_BINS = 8, 2
#: The newest bins that are not what a burst is compared with.
RISE_BINS = 4
#: The fewest bins of a trend, and how many standard deviations of a series without a trend it must exceed.
TREND_BINS, TREND_SIGMAS = 6, 3.0
#: The last minute is a burst if it exceeds the minutes before by this factor and by this many standard deviations.
BURST_FACTOR, BURST_SIGMAS = 1.5, 3.0
#: How long a burst counts, as a share of the window.
BURST_SHARE = 1 / 2


@dataclass(frozen=True, slots=True)
class Demand:
    """What a pool is offered now, in tokens per second.

    Attributes:
        level: the mean of the last minutes, or the end of a significant trend.
        slope: by how much the level changes per second; 0 without a significant trend.
        last: the last minute.
        burst_until: a burst counts until then; None if it is none.
    """

    level: float
    slope: float
    last: float
    burst_until: datetime | None


def demand_of(history: DemandHistory, job_tokens: float, policy: ScalingSettings, now: datetime) -> Demand:
    """What is offered. The history must have a moment that lasted.

    Args: job_tokens: the tokens of a mean job; 0 if unknown.
    """
    ages, rates = _binned(history.moments, policy.window_s)
    mean, last = fmean(rates[:LEVEL_BINS]), fmean(rates[:LAST_BINS])
    level, slope = mean, 0.0
    if len(rates) >= TREND_BINS:
        # The last minute counts as its mean: else more jobs in its first half than in its second could end a trend.
        trend = _trend([last] * LAST_BINS + rates[LAST_BINS:])
        line_end, line_slope = _line(ages, rates)
        if trend > TREND_SIGMAS and line_slope > 0:
            level, slope = max(mean, line_end), line_slope
        elif trend < -TREND_SIGMAS and line_slope < 0:
            level, slope = max(min(mean, line_end), 0.0), line_slope
    burst_until = now + timedelta(seconds=BURST_SHARE * policy.window_s) if _bursts(rates, job_tokens, policy) else None
    if burst_until is None and history.burst_until is not None and history.burst_until > now:
        burst_until = history.burst_until
    return Demand(level, slope, last, burst_until)


def _binned(moments: Sequence[Moment], window_s: float) -> tuple[list[float], list[float]]:
    """The ages in seconds and the rates of the bins that have observations, newest first."""
    newest = moments[-1].at
    bin_s = window_s / BINS
    tokens, seconds = [0.0] * BINS, [0.0] * BINS
    for moment in moments:
        index = int((newest - moment.at).total_seconds() / bin_s)
        if index < BINS and moment.seconds > 0:
            tokens[index] += moment.offered_tokens
            seconds[index] += moment.seconds
    bins = [index for index in range(BINS) if seconds[index] > 0]
    return [index * bin_s for index in bins], [tokens[index] / seconds[index] for index in bins]


def _trend(rates: Sequence[float]) -> float:
    """How many standard deviations the series, newest first, rises more than one without a trend.

    The test of Mann (1945) and Kendall (1975). It compares ranks, so that neither one high rate nor the scale matters.
    """
    rises, older = 0, list[float]()
    for rate in reversed(rates):
        lower, higher = bisect_left(older, rate), len(older) - bisect_right(older, rate)
        rises += lower - higher
        older.insert(lower, rate)
    count = len(rates)
    return rises / math.sqrt(count * (count - 1) * (2 * count + 5) / 18)


def _line(ages: Sequence[float], rates: Sequence[float]) -> tuple[float, float]:
    """The end and the slope of the line of least squares."""
    mid, mean = fmean(ages), fmean(rates)
    spread = sum((age - mid) ** 2 for age in ages)
    slope = sum((mid - age) * rate for age, rate in zip(ages, rates, strict=True)) / spread
    return mean + slope * (mid - ages[0]), slope


def _bursts(rates: Sequence[float], job_tokens: float, policy: ScalingSettings) -> bool:
    """Whether the last minute is far above the minutes before."""
    before = rates[RISE_BINS:]
    if not before:
        return False
    usual = fmean(before)
    # The deviation of what a Poisson stream of jobs brings in a minute, if their sizes are spread exponentially.
    sigma = math.sqrt(2 * usual * job_tokens / (LAST_BINS * policy.window_s / BINS))
    return fmean(rates[:LAST_BINS]) > BURST_FACTOR * usual + BURST_SIGMAS * sigma


# The season: how demand went on past days of the same kind, working days or weekends. The forecast goes by the ratio of
# two rates of the season, not by the rates: a week with half the load keeps its shape.

#: The slots of a day, 10 minutes each.
SLOTS = 144
SLOT_S = 86_400 / SLOTS
#: The number of past days of a kind that make its profile.
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

        Args: offered: in any order; a span longer than a slot is spread evenly over the slots that it covers.
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


# The forecast: level, trend and season at a time ahead.

#: A trend is followed up to this factor of the level.
MOST_GROWTH = 4.0


def expected(demand: Demand, season: Season | None, ahead_s: float) -> tuple[float, str]:
    """The offered tokens per second then, and what they follow from.

    A falling trend is followed half of the way: it ends more often than it goes on.
    """
    level = demand.level
    along = min(max(level + demand.slope * ahead_s, 0.0), MOST_GROWTH * level)
    if season is not None:
        seasonal = level * ratio(season, ahead_s)
        if demand.slope > 0 and along > seasonal:
            return (seasonal + along) / 2, "season and trend"
        return seasonal, "season"
    if demand.slope > 0:
        return along, "trend"
    if demand.slope < 0:
        return (along + level) / 2, "trend"
    return level, "level"


def expected_in_burst(demand: Demand, ahead_s: float) -> float:
    """The offered tokens per second then, if the last minute goes on as it began."""
    return min(demand.last + max(demand.slope, 0.0) * ahead_s, MOST_GROWTH * demand.last)


# How far forecasts were off, and the margin that follows from it. Forecasts are compared by kind, in a burst or not and
# by their size in hosts, because small loads and bursts are the hardest to foresee. One margin for all would be too
# small for those and too large for the others.

#: A forecast, whether it was made in a burst, the hosts it meant, and the mean that came: over a window around the time
#: of the forecast, because a host that is ordered for it stays that long.
Compared = tuple[float, bool, float, float]

#: The kinds of forecasts by their size, each up to the next, in hosts.
SIZES = (0.0, 1.0, 2.0, 4.0, 8.0)
#: An actual rate counts as this multiple of its forecast at most.
MOST_ERROR = 4.0
#: A profile has the quantiles 0 %, 5 % ... 100 %.
QUANTILES = 20
#: The fewest forecasts of a profile that counts: an hour of them, or three hours in bursts, each of which has many.
ENOUGH, ENOUGH_IN_BURST = 120, 360
#: Before that, forecasts are taken to be off by this standard deviation of the logarithm.
PRIOR_SIGMA = 0.12


def error_profiles(compared: Iterable[Compared]) -> tuple[ErrorProfile, ...]:
    """The profiles of these forecasts. A forecast of nothing is left out."""
    ratios: defaultdict[tuple[bool, float], list[float]] = defaultdict(list)
    for forecast, is_burst, in_hosts, actual in compared:
        if forecast > 0 and in_hosts >= 0:
            size = max(size for size in SIZES if size <= in_hosts)
            ratios[is_burst, size].append(min(actual / forecast, MOST_ERROR))
    return tuple(
        ErrorProfile(is_burst, size, len(found), _quantiles(sorted(found)))
        for (is_burst, size), found in sorted(ratios.items())
    )


def _quantiles(ordered: Sequence[float]) -> tuple[float, ...]:
    return tuple(_between(ordered, step / QUANTILES) for step in range(QUANTILES + 1))


def _between(ordered: Sequence[float], share: float) -> float:
    """The value at a share of the way through an ordered sequence, between two values in proportion."""
    place = share * (len(ordered) - 1)
    before = math.floor(place)
    after = min(before + 1, len(ordered) - 1)
    return ordered[before] + (ordered[after] - ordered[before]) * (place - before)


@lru_cache(1_000)
def _prior(quantile: float) -> float:
    return math.exp(PRIOR_SIGMA * NormalDist().inv_cdf(quantile))


def upper(
    forecast: float, quantile: float, profiles: Sequence[ErrorProfile], host_rate: float, *, is_burst: bool
) -> float:
    """The load that a forecast's outcome exceeds with the probability `1 - quantile`.

    It grows with the forecast, although the margin of a larger kind is usually smaller: the largest outcome of any
    smaller forecast counts.

    Args: host_rate: tokens per second of one host, which gives the forecast its size.
    """
    prior = _prior(quantile)
    enough = ENOUGH_IN_BURST if is_burst else ENOUGH
    learned = {
        profile.above_hosts: _between(profile.ratios, quantile)
        for profile in profiles
        if profile.is_burst is is_burst and profile.count >= enough and profile.ratios
    }
    kinds = pairwise(sorted({*SIZES, *learned, math.inf}))
    outcomes = [
        min(forecast, below * host_rate) * learned.get(above, prior)
        for above, below in kinds
        if above * host_rate <= forecast
    ]
    return max(outcomes, default=0.0)
