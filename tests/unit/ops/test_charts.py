"""The charts: what they draw, and that they bring no script and nothing from elsewhere."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from xml.etree import ElementTree

import pytest

from headrace.store.fleet.history import HostChange, PoolMoment, WaitMoment
from headrace.store.money.costs import RouteDay, SplitPoint
from ops import charts

START = datetime(2026, 3, 1, 22, 50, tzinfo=UTC)
SPAN = timedelta(minutes=5)
TREND = [PoolMoment(START + SPAN * n, 30.0 + n, 60.0 + n, 2.0, n / 40) for n in range(40)]
CHANGES = [HostChange(START + timedelta(hours=1), "up", 3, "more"), HostChange(START, "down", 1, "less")]
WINDOW = charts.Window(START, START + timedelta(hours=4), SPAN)
WAITS = [WaitMoment(START + timedelta(minutes=5 * n), lane, 9, n * 1.5) for n in range(9) for lane in ("high", "batch")]
SPLIT = SplitPoint(START, "chat", Decimal("0.8"), Decimal("0.1"), Decimal(12), Decimal(8), Decimal(50), Decimal("0.66"))
DAYS = [RouteDay(START.replace(hour=0, minute=0), route, 3, Decimal(2)) for route in ("pool", "overflow", None)]
CHARTS = {
    "depth": lambda: charts.draw_depth(TREND, CHANGES, WINDOW),
    "kv": lambda: charts.draw_kv_use(TREND, WINDOW),
    "waits": lambda: charts.draw_waits(WAITS, WINDOW),
    "routes": lambda: charts.draw_routes(DAYS, datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)),
    "split": lambda: charts.draw_split(SPLIT),
    "first depth": lambda: charts.draw_depth(TREND[:1], [], WINDOW),
    "first kv": lambda: charts.draw_kv_use(TREND[:1], WINDOW),
    "first waits": lambda: charts.draw_waits(WAITS[:1], WINDOW),
    "nothing": lambda: charts.draw_depth([], [], WINDOW),
}


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("}text")]


def test_a_split_point_beyond_a_saturated_host_is_not_drawn() -> None:
    svg = charts.draw_split(replace(SPLIT, most_requests_per_host_hour=Decimal(5), requests_per_host_hour=Decimal(4)))

    assert "split point" not in texts(svg)
    assert "split point" in texts(charts.draw_split(SPLIT))
    # The lines end where the host is full.
    assert "4" in texts(svg)
    assert "6" not in texts(svg)


@pytest.mark.parametrize("name", list(CHARTS))
def test_a_chart_has_no_script_and_loads_nothing(name: str) -> None:
    svg = CHARTS[name]()
    assert "<script" not in svg
    assert "://" not in svg.replace("http://www.w3.org/", "")
    assert "prefers-color-scheme:dark" in svg.replace(" ", "")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        (
            "depth",
            {"mean depth", "highest depth", "hosts (right)", "order (right)", "drain (right)", "00:00", "100", "4"},
        ),
        ("kv", {"KV cache in use", "100%", "0%"}),
        ("waits", {"high", "normal", "low", "batch", "0 s"}),
        ("routes", {"own hosts", "paid API", "03-01"}),
        ("split", {"own host", "paid API", "split point", "served"}),
        ("nothing", {"No data yet"}),
    ],
)
def test_a_chart_names_what_it_shows(name: str, labels: set[str]) -> None:
    assert labels <= set(texts(CHARTS[name]()))


def test_times_are_a_round_step_apart() -> None:
    ticks = charts._ticks(START, START + timedelta(hours=7))
    assert [f"{at:%H:%M}" for at in ticks] == ["23:00", "00:00", "01:00", "02:00", "03:00", "04:00", "05:00"]
    assert len(charts._ticks(START, START + timedelta(days=7))) <= charts.LABELS


@pytest.mark.parametrize("name", ["first depth", "first kv", "first waits"])
def test_the_axis_is_the_time_that_was_asked_for(name: str) -> None:
    assert {"23:00", "23:30", "02:30"} <= set(texts(CHARTS[name]()))
    assert f"{START.timestamp():.0f}" not in texts(CHARTS[name]())


def test_a_value_stands_over_its_whole_span_and_not_where_there_is_none() -> None:
    at = [START + SPAN * number for number in (-1, 0, 3, 48)]
    window = WINDOW._replace(since=START - timedelta(minutes=2))
    points = charts._steps([(each, number) for number, each in enumerate(at)], window)
    first, second, third = (each.timestamp() for each in at[:3])
    assert points == [
        *((window.since.timestamp(), 0), (second, 0), (second, 1), (second + 300, 1), (second + 300, None)),
        *(
            (third, 2),
            (third + 300, 2),
            (third + 300, None),
            (window.until.timestamp(), 3),
            (window.until.timestamp(), 3),
        ),
    ]
    assert first < points[0][0], "the first span begins before the chart"


def test_a_chart_has_no_more_spans_than_points_and_each_begins_at_a_round_time() -> None:
    for hours in (1, 6, 24, 168):
        span = next(span for span in charts.SPANS if timedelta(hours=hours) <= charts.POINTS * span)
        assert timedelta(hours=hours) / span <= charts.POINTS
        assert timedelta(days=1) % span == timedelta(0)
