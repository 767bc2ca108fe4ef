"""The pages' charts, as SVG: pure, from rows to text."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pygal

from headrace.charts import drawn, options, scale
from headrace.domain.queues import Lane, Route
from headrace.store.fleet.history import HostChange, PoolMoment, WaitMoment
from headrace.store.money.trends import RouteDay, SplitPoint

#: The labels of the axis of time are a round step apart: the first of these that gives at most `LABELS`.
STEPS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 10, 30, 60, 120, 240, 720, 1440))
LABELS = 8
#: Fewer points than this are dots, because the line between them is short, or there is none.
FEW = 3
#: What each route is called.
ROUTES = {Route.POOL: "own hosts", Route.OVERFLOW: "paid API"}
#: Points of a curve.
CURVE_POINTS = 60


def depth(trend: Sequence[PoolMoment], changes: Sequence[HostChange]) -> str:
    """Depth on the left axis; hosts on the right one, where decisions are dots at the number that they want."""
    left = scale(max((each.depth for each in trend), default=0))
    right = scale(max([each.hosts for each in trend] + [each.target for each in changes], default=0))
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


def routes(found: Sequence[RouteDay], since: datetime, until: datetime) -> str:
    """USD of each day, stacked by route."""
    days = [since + timedelta(days=number) for number in range((until - since).days)]
    chart = pygal.StackedBar(**options(value_formatter=lambda usd: f"{usd:,.4g}", show_minor_x_labels=False))
    chart.x_labels = [f"{day:%m-%d}" for day in days]
    chart.x_labels_major_every = 3
    for route, label in ROUTES.items():
        usd = {each.day: float(each.full_usd) for each in found if each.route == route}
        chart.add(label, [usd.get(day, 0.0) for day in days] if usd else [])
    return drawn(chart)


def split(point: SplitPoint) -> str:
    """USD of one request by how many an hour a host serves: a host's price shared by them, and the paid API's price.

    Where the lines cross is the split point. The dot is what the hosts served.
    """
    chart = pygal.XY(
        **options(value_formatter=lambda usd: f"{usd:,.4g} USD", x_value_formatter=lambda rate: f"{rate:,.4g}")
    )
    break_even, served = point.break_even_requests_per_host_hour, point.requests_per_host_hour
    # Beyond that the lines only run on: a saturated host may serve a hundred times as many.
    end = 4 * max(served, break_even or served)
    # A quarter of the crossing: nearer to zero a host's request is so dear that the crossing cannot be seen.
    start = min(served, break_even or served) / 4
    rates = [start + (end - start) * number / CURVE_POINTS for number in range(CURVE_POINTS + 1)]
    chart.add("own host", [(float(rate), float(point.usd_per_host_hour / rate)) for rate in rates if rate])
    if point.api_usd_per_request is not None:
        chart.add("paid API", [(float(rate), float(point.api_usd_per_request)) for rate in (start, end)])
        if break_even:
            chart.add("split point", [_dot(break_even, point.api_usd_per_request)], stroke=False, show_dots=True)
    if served:
        chart.add("served", [_dot(served, point.usd_per_host_hour / served)], stroke=False, show_dots=True)
    return drawn(chart)


def _dot(rate: Decimal, usd: Decimal) -> tuple[float, float]:
    return float(rate), float(usd)
