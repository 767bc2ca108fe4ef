"""`/ops/charts`: pictures as SVG, drawn by the server. They have no script."""

from datetime import timedelta

from flask import Blueprint, Response, request

from headrace.errors import NotFound
from headrace.store import clock
from headrace.store.fleet import history
from headrace.store.money import trends as money_trends
from ops import charts
from ops.deps import deps
from ops.forms import MonthForm, Periods, checked
from ops.pages.cost import after, month_of

blueprint = Blueprint("charts", __name__, url_prefix="/charts")

#: A picture's style is inside it. Nothing else runs or loads.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
#: Points of a line.
POINTS = 120


@blueprint.get("/depth.svg")
def depth() -> Response:
    """A pool's depth and hosts, and the decisions that changed them."""
    form, pool = _asked()
    since, span = _period(form)
    with deps().store.read() as db:
        start = clock.now(db) - since
        trend, changes = history.pool_trend(db, pool, start, span), history.host_changes(db, pool, start)
    return _picture(charts.depth(trend, changes))


@blueprint.get("/kv.svg")
def kv() -> Response:
    """The use of a pool's KV caches."""
    form, pool = _asked()
    since, span = _period(form)
    with deps().store.read() as db:
        trend = history.pool_trend(db, pool, clock.now(db) - since, span)
    return _picture(charts.kv_use(trend))


@blueprint.get("/waits.svg")
def waits() -> Response:
    """The 95th percentile of the waits of each lane."""
    since, span = _period(checked(Periods(request.args)))
    with deps().store.read() as db:
        found = history.wait_trend(db, clock.now(db) - since, span * 2)
    return _picture(charts.waits(found))


@blueprint.get("/routes.svg")
def routes() -> Response:
    """USD of each day of a month by route."""
    form = checked(MonthForm(request.args))
    with deps().store.read() as db:
        month = month_of(form.month.data, clock.now(db))
        found = money_trends.routes_per_day(db, month, after(month))
    return _picture(charts.routes(found, month, after(month)))


@blueprint.get("/split.svg")
def split() -> Response:
    """What a pool's request cost on an own host against the paid API, by requests an hour."""
    form, month_form = checked(Periods(request.args)), checked(MonthForm(request.args))
    with deps().store.read() as db:
        month = month_of(month_form.month.data, clock.now(db))
        points = money_trends.split_points(db, month, after(month))
    found = [each for each in points if each.pool == form.pool.data]
    if not found:
        raise NotFound("This pool has no split point in this month.")
    return _picture(charts.split(found[0]))


def _asked() -> tuple[Periods, str]:
    form: Periods = checked(Periods(request.args))
    if form.pool.data not in deps().settings.own_pools:
        raise NotFound("There is no such pool.")
    return form, str(form.pool.data)


def _period(form: Periods) -> tuple[timedelta, timedelta]:
    """The time that a chart shows, and the length of its spans."""
    since = timedelta(hours=int(form.hours.data))
    return since, since / POINTS


def _picture(svg: str) -> Response:
    response = Response(svg, mimetype="image/svg+xml")
    response.headers["Content-Security-Policy"] = POLICY
    return response
