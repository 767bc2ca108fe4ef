"""The level and the trend of what is offered now, and whether it is a burst.

Every estimate grows with the newest observations, and in proportion if all observations grow in proportion. So more
demand never leads to fewer hosts.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import fmean

from headrace.config import ScalingSettings
from headrace.domain.scaling import History, Moment

#: The window is looked at in so many bins: 30 s of 10 minutes.
BINS = 20
#: The newest bins that make up the level, 4 minutes, and those that make up the last minute.
LEVEL_BINS, LAST_BINS = 8, 2
#: The newest bins that are not what a burst is compared with.
RISE_BINS = 4
#: A trend needs so many bins, and so many standard deviations of a series without one.
TREND_BINS, TREND_SIGMAS = 6, 3.0
#: The last minute is a burst if it exceeds the minutes before by this factor, and so many standard deviations more.
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


def demand_of(history: History, job_tokens: float, policy: ScalingSettings, now: datetime) -> Demand:
    """What is offered. The history must have a moment that lasted.

    Args:
        job_tokens: the tokens of a mean job; 0 if unknown.
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
    # By so much varies what a Poisson stream of jobs brings in a minute, if their sizes are spread exponentially.
    sigma = math.sqrt(2 * usual * job_tokens / (LAST_BINS * policy.window_s / BINS))
    return fmean(rates[:LAST_BINS]) > BURST_FACTOR * usual + BURST_SIGMAS * sigma
