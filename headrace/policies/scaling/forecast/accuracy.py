"""How far forecasts were off, and the margin that follows from it.

Forecasts are compared by kind, in a burst or not and by their size in hosts, because small loads and bursts are the
hardest to foresee. One margin for all would be too small for those and too large for the others.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist

from headrace.domain.scaling import ErrorProfile

#: A forecast, whether it was made in a burst, the hosts it meant, and the mean that came: over a window around the time
#: of the forecast, because a host that is ordered for it stays that long.
Compared = tuple[float, bool, float, float]

#: The kinds of forecasts by their size, each up to the next, in hosts.
SIZES = (0.0, 1.0, 2.0, 4.0, 8.0)
#: An actual rate counts as at most so many times its forecast.
MOST_RATIO = 4.0
#: A profile has the quantiles 0 %, 5 % ... 100 %.
QUANTILES = 20
#: A profile counts from so many forecasts on: an hour of them, or three hours in bursts, each of which has many.
ENOUGH, ENOUGH_IN_BURST = 120, 360
#: Before that, forecasts are taken to be off by this standard deviation of the logarithm.
PRIOR_SIGMA = 0.12


def error_profiles(compared: Iterable[Compared]) -> tuple[ErrorProfile, ...]:
    """The profiles of these forecasts. A forecast of nothing is left out."""
    ratios: defaultdict[tuple[bool, float], list[float]] = defaultdict(list)
    for forecast, is_burst, in_hosts, actual in compared:
        if forecast > 0 and in_hosts >= 0:
            size = max(size for size in SIZES if size <= in_hosts)
            ratios[is_burst, size].append(min(actual / forecast, MOST_RATIO))
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

    Args:
        host_rate: tokens per second of one host, which gives the forecast its size.
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
