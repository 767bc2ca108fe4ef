"""Charts of pools and lanes over time."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pygal

from headrace.domain.queues import Lane
from headrace.store.fleet.history import HostChange, PoolMoment, WaitMoment
from ops.charts.style import drawn, options

#: The labels of the axis of time are a round step apart: the first of these that gives at most `LABELS`.
STEPS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 10, 30, 60, 120, 240, 720, 1440))
LABELS = 8
#: Fewer points than this are dots, because the line between them is short, or there is none.
FEW = 3


def depth(trend: Sequence[PoolMoment], changes: Sequence[HostChange]) -> str:
    """Depth on the left axis; hosts on the right one, where decisions are dots at the number that they want."""
    left = _scale(max((each.depth for each in trend), default=0))
    right = _scale(max([each.hosts for each in trend] + [each.target for each in changes], default=0))
    chart = _over_time(trend, range=(0, left[-1]), secondary_range=(0, right[-1]), y_labels=left)
    dots = len(trend) < FEW
    chart.add("depth", [_point(each.at, each.depth) for each in trend], fill=True, show_dots=dots)
    chart.add("hosts (right)", [_point(each.at, each.hosts) for each in trend], secondary=True, show_dots=dots)
    for action, label in (("up", "order (right)"), ("down", "drain (right)")):
        points = [_point(each.at, each.target) for each in changes if each.action == action]
        if points:
            chart.add(label, points, secondary=True, stroke=False, show_dots=True)
    return drawn(chart)


def kv_use(trend: Sequence[PoolMoment]) -> str:
    """The highest share of the KV caches in use."""
    known = [each for each in trend if each.kv_use is not None]
    chart = _over_time(
        known, range=(0, 1), y_labels=(0, 0.25, 0.5, 0.75, 1), value_formatter=lambda share: f"{share:.0%}"
    )
    points = [_point(each.at, each.kv_use) for each in known]
    chart.add("KV cache in use", points, fill=True, show_dots=len(points) < FEW)
    return drawn(chart)


def waits(trend: Sequence[WaitMoment]) -> str:
    """A line for each lane that had starts."""
    chart = _over_time(trend, value_formatter=lambda wait_s: f"{wait_s:,.4g} s")
    for lane in Lane:
        # Each lane keeps its colour, with the others or without.
        points = [_point(each.at, each.p95_wait_s) for each in trend if each.lane == lane]
        chart.add(str(lane), points, show_dots=len(points) < FEW)
    return drawn(chart)


def _point(at: datetime, value: float | None) -> tuple[float, float | None]:
    return at.timestamp(), value


def _over_time(trend: Sequence[PoolMoment] | Sequence[WaitMoment], **more: Any) -> pygal.XY:
    times = [each.at for each in trend]
    # pygal labels an axis without labels by itself, with seconds since 1970.
    ticks = (_ticks(min(times), max(times)) or [min(times)]) if times else []
    shape = "%m-%d" if ticks and ticks[-1] - ticks[0] > timedelta(days=2) else "%H:%M"
    labels = [{"value": at.timestamp(), "label": f"{at:{shape}}"} for at in ticks]
    return pygal.XY(**options(".3", x_labels=labels, **more))


def _scale(most: float) -> list[float]:
    """Five round labels from 0 up to `most` or above, so that both axes have as many."""
    steps = (factor * 10**power for power in range(12) for factor in (1, 2, 5))
    step = next(step for step in steps if step * 4 >= most)
    return [float(number * step) for number in range(5)]


def _ticks(first: datetime, last: datetime) -> list[datetime]:
    """Round times from the first to the last."""
    step = next((step for step in STEPS if (last - first) / step <= LABELS), STEPS[-1])
    zero = first.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    number = -((zero - first) // step)
    ticks = []
    while (at := zero + number * step) <= last:
        ticks.append(at)
        number += 1
    return ticks
