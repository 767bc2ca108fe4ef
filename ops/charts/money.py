"""Charts of money."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import pygal

from headrace.domain.queues import Route
from headrace.store.money.trends import RouteDay, SplitPoint
from ops.charts.style import drawn, options

#: What each route is called.
LABELS = {Route.POOL: "own hosts", Route.OVERFLOW: "paid API"}
#: Points of a curve.
POINTS = 60


def routes(found: Sequence[RouteDay], since: datetime, until: datetime) -> str:
    """USD of each day, stacked by route."""
    days = [since + timedelta(days=number) for number in range((until - since).days)]
    chart = pygal.StackedBar(**options(value_formatter=lambda usd: f"{usd:,.4g}", show_minor_x_labels=False))
    chart.x_labels = [f"{day:%m-%d}" for day in days]
    chart.x_labels_major_every = 3
    for route, label in LABELS.items():
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
    rates = [start + (end - start) * number / POINTS for number in range(POINTS + 1)]
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
