"""The charts: what they draw, and that they bring no script and nothing from elsewhere."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from xml.etree import ElementTree

import pytest

from headrace.store.fleet.history import HostChange, PoolMoment, WaitMoment
from headrace.store.money.trends import RouteDay, SplitPoint
from ops import charts

START = datetime(2026, 3, 1, 22, 50, tzinfo=UTC)
TREND = [PoolMoment(START + timedelta(minutes=5 * n), 30.0 + n, 2.0, n / 40) for n in range(40)]
CHANGES = [HostChange(START + timedelta(hours=1), "up", 3, "more"), HostChange(START, "down", 1, "less")]
WAITS = [WaitMoment(START + timedelta(minutes=5 * n), lane, 9, n * 1.5) for n in range(9) for lane in ("high", "batch")]
SPLIT = SplitPoint(START, "chat", Decimal("0.8"), Decimal("0.1"), Decimal(12), Decimal(8), Decimal(50), Decimal("0.66"))
DAYS = [RouteDay(START.replace(hour=0, minute=0), route, 3, Decimal(2)) for route in ("pool", "overflow", None)]
CHARTS = {
    "depth": lambda: charts.depth(TREND, CHANGES),
    "kv": lambda: charts.kv_use(TREND),
    "waits": lambda: charts.waits(WAITS),
    "routes": lambda: charts.routes(DAYS, datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)),
    "split": lambda: charts.split(SPLIT),
    "first depth": lambda: charts.depth(TREND[:1], []),
    "first kv": lambda: charts.kv_use(TREND[:1]),
    "first waits": lambda: charts.waits(WAITS[:1]),
    "nothing": lambda: charts.depth([], []),
}


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("}text")]


@pytest.mark.parametrize("name", list(CHARTS))
def test_a_chart_has_no_script_and_loads_nothing(name: str) -> None:
    svg = CHARTS[name]()
    assert "<script" not in svg
    assert "://" not in svg.replace("http://www.w3.org/", "")
    assert "prefers-color-scheme:dark" in svg.replace(" ", "")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("depth", {"depth", "hosts (right)", "order (right)", "drain (right)", "00:00", "80", "4"}),
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
def test_the_first_moment_is_a_dot_at_its_time(name: str) -> None:
    svg = CHARTS[name]()
    assert "22:50" in texts(svg)
    assert f"{START.timestamp():.0f}" not in texts(svg)
    assert any(each.get("class", "").split()[:1] == ["dot"] for each in ElementTree.fromstring(svg).iter())
