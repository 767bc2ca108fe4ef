"""Made-up load: days, a week, launches and a ramp, as requests in each minute."""

import math
from array import array
from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType

from headrace.cli.backtest.trace import RateTrace

HOUR = 60
DAY = 24 * HOUR
#: The rate of each minute varies by so much (standard deviation, log-normal), beside the chance of single arrivals.
NOISE = 0.08
#: The requests per second of a day's peak.
PEAK = 12.8

Rate = Callable[[float], float]


def synthetic(name: str, seed: int) -> RateTrace:
    """One of `SYNTHETIC`, with noise."""
    minutes, rate = SYNTHETIC[name]
    noise = Random(seed)
    # The mean of the factor is 1, so that noise does not add load.
    factors = (math.exp(noise.gauss(-(NOISE**2) / 2, NOISE)) for _ in range(minutes))
    return RateTrace(array("d", (60 * rate(minute + 0.5) * factor for minute, factor in enumerate(factors))))


def _day(minute: float) -> float:
    """A working day: quiet nights, a plateau from 7 to 21, its peak from 9 to 11, and a low swell at 15."""
    hour = minute % DAY / HOUR
    trough, plateau = 0.14 * PEAK, 0.48 * PEAK
    rise = 1 / (1 + math.exp(-(hour - 7) * 1.6)) - 1 / (1 + math.exp(-(hour - 21) * 1.1))
    peak = math.exp(-(((hour - 10) / 1.25) ** 4))
    return trough + (plateau - trough) * rise + (PEAK - plateau) * peak + 0.1 * PEAK * _bell(hour, 15, 2)


def _week(minute: float) -> float:
    """Five working days, then a weekend at 45 % of their load."""
    return _day(minute) * (0.45 if minute >= 5 * DAY else 1)


def _bell(x: float, middle: float, width: float) -> float:
    return math.exp(-(((x - middle) / width) ** 2) / 2)


def _spike(rise: float) -> Rate:
    """0.3 requests a second for 3 hours, up to 7 in so many minutes, 7 for 6 hours, down within an hour."""

    def rate(minute: float) -> float:
        up = (minute - 3 * HOUR) / rise
        down = (minute - 9 * HOUR - rise) / HOUR
        return 0.3 + 6.7 * max(0.0, min(1.0, up) - max(0.0, min(1.0, down)))

    return rate


def _ramp(minute: float) -> float:
    """1 request a second for an hour, up to 14 in three hours, down to 1 in three hours, 1 for an hour."""
    return 1 + 13 * max(0.0, 1 - abs(minute - 4 * HOUR) / (3 * HOUR))


#: The length of each in minutes, and its rate in requests per second at a minute.
SYNTHETIC: Mapping[str, tuple[int, Rate]] = MappingProxyType(
    {
        "day": (DAY, _day),
        "week": (7 * DAY, _week),
        "spike-5": (13 * HOUR, _spike(5)),
        "spike-30": (13 * HOUR, _spike(30)),
        "ramp": (8 * HOUR, _ramp),
    }
)
