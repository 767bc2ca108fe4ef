"""`/ops/charts`: the pages' charts as SVG, drawn by the server, without a script."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple, Self

import pygal
from flask import Blueprint, Response, request
from sqlalchemy import Connection

from headrace.charts import drawn, options, scale
from headrace.domain.queues import Lane, Route
from headrace.errors import NotFound
from headrace.store import clock
from headrace.store.fleet import history
from headrace.store.fleet.history import HostChange, PoolMoment, WaitMoment
from headrace.store.money import costs
from headrace.store.money.costs import RouteDay, SplitPoint
from ops.deps import deps
from ops.forms import MonthForm, Periods, checked
from ops.money import after, month_of

blueprint = Blueprint("charts", __name__, url_prefix="/charts")

#: A picture's style is inside it. Nothing else runs or loads.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
#: Spans of a line, at most.
POINTS = 120
#: The spans of charts, which begin at round times: the first that gives no more points.
SPANS = tuple(timedelta(seconds=seconds) for seconds in (30, 60, 180, 300, 900, 1800, 3600, 7200))


class Window(NamedTuple):
    """The time that a chart shows, and the length of its spans."""

    since: datetime
    until: datetime
    span: timedelta

    @classmethod
    def of(cls, db: Connection, form: Periods) -> Self:
        """The time up to now."""
        now, shown = clock.now(db), timedelta(hours=int(form.hours.data))
        return cls(now - shown, now, next(span for span in SPANS if shown <= POINTS * span))


@blueprint.get("/depth.svg")
def depth() -> Response:
    """A pool's depth and hosts, and the decisions that changed them."""
    form, pool = _asked()
    with deps().store.read() as db:
        window = Window.of(db, form)
        trend = history.pool_trend(db, pool, window.since, window.span)
        changes = history.host_changes(db, pool, window.since)
    return _picture(draw_depth(trend, changes, window))


@blueprint.get("/kv.svg")
def kv() -> Response:
    """The use of a pool's KV caches."""
    form, pool = _asked()
    with deps().store.read() as db:
        window = Window.of(db, form)
        trend = history.pool_trend(db, pool, window.since, window.span)
    return _picture(draw_kv_use(trend, window))


@blueprint.get("/waits.svg")
def waits() -> Response:
    """The 95th percentile of the waits of each lane."""
    form: Periods = checked(Periods(request.args))
    with deps().store.read() as db:
        window = Window.of(db, form)
        found = history.wait_trend(db, window.since, window.span)
    return _picture(draw_waits(found, window))


@blueprint.get("/routes.svg")
def routes() -> Response:
    """USD of each day of a month by route."""
    form = checked(MonthForm(request.args))
    with deps().store.read() as db:
        month = month_of(form.month.data, clock.now(db))
        found = costs.routes_per_day(db, month, after(month))
    return _picture(draw_routes(found, month, after(month)))


@blueprint.get("/split.svg")
def split() -> Response:
    """What a pool's request cost on an own host against the paid API, by requests an hour."""
    form, month_form = checked(Periods(request.args)), checked(MonthForm(request.args))
    with deps().store.read() as db:
        month = month_of(month_form.month.data, clock.now(db))
        points = costs.split_points(db, month, after(month))
    found = [each for each in points if each.pool == form.pool.data]
    if not found:
        raise NotFound("This pool has no split point in this month.")
    return _picture(draw_split(found[0]))


def _asked() -> tuple[Periods, str]:
    form: Periods = checked(Periods(request.args))
    if form.pool.data not in deps().settings.own_pools:
        raise NotFound("There is no such pool.")
    return form, str(form.pool.data)


def _picture(svg: str) -> Response:
    response = Response(svg, mimetype="image/svg+xml")
    response.headers["Content-Security-Policy"] = POLICY
    return response


#: The labels of the axis of time are a round step apart: the first of these that gives at most `LABELS`.
STEPS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 10, 30, 60, 120, 240, 720, 1440))
LABELS = 8
#: What each route is called.
ROUTES = {Route.POOL: "own hosts", Route.OVERFLOW: "paid API"}
#: Points of a curve.
CURVE_POINTS = 60


def draw_depth(trend: Sequence[PoolMoment], changes: Sequence[HostChange], window: Window) -> str:
    """Depth on the left axis; hosts on the right one, where decisions are dots at the number that they want."""
    left = scale(max((each.most for each in trend), default=0))
    right = scale(max([each.hosts for each in trend] + [each.target for each in changes], default=0))
    chart = _over_time(window, has_data=bool(trend), range=(0, left[-1]), secondary_range=(0, right[-1]), y_labels=left)
    chart.add("mean depth", _steps([(each.at, each.depth) for each in trend], window))
    chart.add("highest depth", _steps([(each.at, each.most) for each in trend], window))
    chart.add("hosts (right)", _steps([(each.at, each.hosts) for each in trend], window), secondary=True)
    for action, label in (("up", "order (right)"), ("down", "drain (right)")):
        points = [(each.at.timestamp(), each.target) for each in changes if each.action == action]
        if points:
            chart.add(label, points, secondary=True, stroke=False, show_dots=True)
    return drawn(chart)


def draw_kv_use(trend: Sequence[PoolMoment], window: Window) -> str:
    """The highest share of the KV caches in use."""
    known = [(each.at, each.kv_use) for each in trend if each.kv_use is not None]
    chart = _over_time(
        window,
        has_data=bool(known),
        range=(0, 1),
        y_labels=(0, 0.25, 0.5, 0.75, 1),
        value_formatter=lambda share: f"{share:.0%}",
    )
    chart.add("KV cache in use", _steps(known, window))
    return drawn(chart)


def draw_waits(trend: Sequence[WaitMoment], window: Window) -> str:
    """A line for each lane that had starts."""
    chart = _over_time(window, has_data=bool(trend), value_formatter=lambda wait_s: f"{wait_s:,.4g} s")
    for lane in Lane:
        # Each lane keeps its colour, with the others or without.
        points = [(each.at, each.p95_wait_s) for each in trend if each.lane == lane]
        chart.add(str(lane), _steps(points, window))
    return drawn(chart)


def _steps(values: Sequence[tuple[datetime, float]], window: Window) -> list[tuple[float, float | None]]:
    """The points of a line that has each value over its whole span, and none where a span has no value."""
    points: list[tuple[float, float | None]] = []
    for number, (at, value) in enumerate(values):
        end = min(at + window.span, window.until)
        points += [(max(at, window.since).timestamp(), value), (end.timestamp(), value)]
        if number + 1 < len(values) and values[number + 1][0] > at + window.span:
            points.append((end.timestamp(), None))
    return points


def _over_time(window: Window, *, has_data: bool, **more: Any) -> pygal.XY:
    """Args: has_data: without it, the axis has no labels either."""
    ticks = _ticks(window.since, window.until) if has_data else []
    shape = "%m-%d" if window.until - window.since > timedelta(days=2) else "%H:%M"
    labels = [{"value": at.timestamp(), "label": f"{at:{shape}}"} for at in ticks]
    times = (window.since.timestamp(), window.until.timestamp())
    return pygal.XY(**options(".3", x_labels=labels, xrange=times, allow_interruptions=True, **more))


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


def draw_routes(found: Sequence[RouteDay], since: datetime, until: datetime) -> str:
    """USD of each day, stacked by route."""
    days = [since + timedelta(days=number) for number in range((until - since).days)]
    chart = pygal.StackedBar(**options(value_formatter=lambda usd: f"{usd:,.4g}", show_minor_x_labels=False))
    chart.x_labels = [f"{day:%m-%d}" for day in days]
    chart.x_labels_major_every = 3
    for route, label in ROUTES.items():
        usd = {each.day: float(each.full_usd) for each in found if each.route == route}
        chart.add(label, [usd.get(day, 0.0) for day in days] if usd else [])
    return drawn(chart)


def draw_split(point: SplitPoint) -> str:
    """USD of one request by how many an hour a host serves: a host's price shared by them, and the paid API's price.

    Where the lines cross is the split point. The dot is what the hosts served.
    """
    chart = pygal.XY(
        **options(value_formatter=lambda usd: f"{usd:,.4g} USD", x_value_formatter=lambda rate: f"{rate:,.4g}")
    )
    break_even, served = point.break_even_requests_per_host_hour, point.requests_per_host_hour
    if point.is_never_reached:
        break_even = None
    # Beyond that the lines only run on: a saturated host may serve a hundred times as many.
    end = min(
        4 * max(served, break_even or served), max(served, point.most_requests_per_host_hour or Decimal("Infinity"))
    )
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
