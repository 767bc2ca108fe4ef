"""Each point of the charts of the pages is that of the rows."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from xml.etree import ElementTree

import pytest
import sqlalchemy as sa

from headrace.domain.queues import Lane, Ticket
from headrace.store import Store
from headrace.tables import decisions, queue_rollups, queue_samples
from ops.money import after
from tests.integration.ops.browser import Browser
from tests.integration.ops.charged import BILLS, ENTRIES, HOST_HOURS, MONTH, OPEN

Query = Callable[..., list[tuple[Any, ...]]]
Point = tuple[float, float]


class Chart:
    """Reads an SVG in the units of its axes: the points of each series, or the heights of its bars, by name."""

    def __init__(self, svg: str) -> None:
        self._root = ElementTree.fromstring(svg)
        left, right = self._scale("axis y always_show", 1), self._scale("axis y2", 1)
        across = self._scale("axis x", 0)
        names = ["".join(each.itertext()).strip() for each in self._all("legend")]
        self.points: dict[str, list[Point]] = {}
        self.bars: dict[str, list[float]] = {}
        for number, name in enumerate(names):
            found = [each for group in self._all(f"serie-{number}") for each in group.iter()]
            up = right if "(right)" in name else left
            lines = " ".join(each.get("d", "") for each in found if "line" in each.get("class", "").split())
            pixels = [(float(x), float(y)) for x, y in re.findall(r"([\d.-]+) ([\d.-]+)", lines)]
            pixels += [(float(each.get("cx", "")), float(each.get("cy", ""))) for each in found if each.get("cx")]
            self.points[name] = [(across(x), up(y)) for x, y in pixels]
            heights = [float(each.get("height", "")) for each in found if each.get("height")]
            self.bars[name] = [up(0) - up(height) for height in heights]

    def _all(self, name: str) -> list[ElementTree.Element]:
        return [each for each in self._root.iter() if name in (each.get("class"), *each.get("class", "").split())]

    def _scale(self, axis: str, at: int) -> Callable[[float], float]:
        """From an axis's pixels to its values, by its first and its last label."""
        marks = []
        for guide in (each for found in self._all(axis) for each in found.iter() if each.get("class") == "guides"):
            # A label stands lower than its line by a third of its height.
            text, line = guide.find("{*}text"), guide.find("{*}path")
            title = guide.find("{*}title")
            label = (text if title is None else title).text
            pixel = text.get("y") if line is None else re.findall(r"[\d.]+", line.get("d"))[at]
            value = re.match(r"[\d.,]+(?=%?)", label)
            share = 100 if "%" in label else 1
            marks.append((float(pixel) - (4.55 if line is None else 0), float(value[0].replace(",", "")) / share))
        if not marks:
            return lambda pixel: pixel
        (first, low), (last, high) = marks[0], marks[-1]
        return lambda pixel: low + (pixel - first) * (high - low) / (last - first)


def near(points: list[Point], expected: list[Point]) -> bool:
    """Returns True if points are the same within a pixel."""
    most = [max(abs(point[at]) for point in expected) or 1 for at in (0, 1)]
    # A tenth of a pixel of an hour, of 800 pixels, is half a second.
    assert [x for x, _ in points] == pytest.approx([x for x, _ in expected], abs=1 if most[0] > 1e9 else most[0] / 1e4)
    assert [y for _, y in points] == pytest.approx([y for _, y in expected], abs=most[1] / 1e4)
    return bool(points)


def steps(values: list[tuple[Any, ...]], span_s: int) -> list[Point]:
    """A line that has each value over its whole span. Args: values: the start of a span, and its value."""
    return [(float(at) + more, float(value)) for at, value in values for more in (0, span_s)]


def _sample(db: sa.Connection, lane: Lane, at: datetime, depth: float, **more: Any) -> None:
    values = {"queue": f"chat.{lane}", "at": at, "depth": depth, "offered_tokens": 0}
    counts = dict.fromkeys(("oldest_wait_s", "arrivals", "refused", "started", "running", "slots"), 0)
    db.execute(sa.insert(queue_samples).values(**counts, **values, **more))


def test_the_chart_of_a_pool_has_the_depth_hosts_and_caches_of_its_samples(
    viewer: Browser, store: Store, query: Query
) -> None:
    with store.begin() as db:
        now = db.scalar(sa.select(sa.func.now()))
        first = now.replace(second=0, microsecond=0) - timedelta(minutes=30)
        # Of two minutes and, after a gap, of one.
        for number in (*range(12), *range(60, 66)):
            for lane, depth in ((Lane.HIGH, number % 5), (Lane.NORMAL, 10 + 3 * number % 17)):
                of_pool = {"hosts": 1 + (number > 6), "kv_use": number / 100}
                _sample(db, lane, first + timedelta(seconds=10 * number), depth, **of_pool)
        common = {"pool": "chat", "mode": "active", "inputs": {}, "policy": "reactive", "reason": "test", "hosts": 1}
        for action, target in (("up", 2), ("hold", 2), ("down", 1)):
            at = first + timedelta(seconds=60)
            db.execute(sa.insert(decisions).values(**common, action=action, target=target, at=at))
    moments = (
        "WITH moments AS (SELECT floor(extract(epoch FROM at) / 30) * 30 AS span, sum(depth) AS depth, "
        "max(hosts) AS hosts, max(kv_use) AS kv_use FROM queue_samples GROUP BY at) "
    )
    chart = Chart(viewer.get("/charts/depth.svg?pool=chat&hours=1").text)
    for name, value in (("mean depth", "avg(depth)"), ("highest depth", "max(depth)"), ("hosts (right)", "avg(hosts)")):
        expected = query(f"{moments} SELECT span, {value} FROM moments GROUP BY span ORDER BY span")
        assert len(expected) == 6
        assert near(chart.points[name], steps(expected, 30)), name
    for action, name in (("up", "order (right)"), ("down", "drain (right)")):
        made = query("SELECT extract(epoch FROM at), target FROM decisions WHERE action = :action", action=action)
        assert near(chart.points[name], [(float(at), target) for at, target in made])
    chart = Chart(viewer.get("/charts/kv.svg?pool=chat&hours=1").text)
    expected = query(f"{moments} SELECT span, max(kv_use) FROM moments GROUP BY span ORDER BY span")
    assert near(chart.points["KV cache in use"], steps(expected, 30))


def test_a_minute_s_roll_up_counts_in_a_chart_as_the_samples_that_it_replaces(viewer: Browser, store: Store) -> None:
    with store.begin() as db:
        now = db.scalar(sa.select(sa.func.now()))
        at = datetime.fromtimestamp((now.timestamp() - 86_400) // 7200 * 7200, UTC)
        sums = dict.fromkeys(("arrivals", "refused", "started", "started_tokens", "offered", "offered_tokens"), 0)
        zeros = {**sums, "spilled": 0, "finished": 0, "running": 0, "slots": 0, "oldest_wait_s": 0}
        minute = {
            "queue": "chat.normal",
            "span_s": 60,
            "at": at,
            "samples": 12,
            "depth": 40,
            "most_depth": 50,
            "hosts": 4,
        }
        db.execute(sa.insert(queue_rollups).values(**zeros, **minute))
        for number in range(4):
            _sample(db, Lane.NORMAL, at + timedelta(seconds=60 + 5 * number), 8, hosts=2)
    chart = Chart(viewer.get("/charts/depth.svg?pool=chat&hours=168").text)
    for name, value in (("mean depth", (12 * 40 + 4 * 8) / 16), ("highest depth", 50), ("hosts (right)", 3.5)):
        assert [y for _, y in chart.points[name]] == pytest.approx([value] * 2, rel=1e-3), name


def test_the_chart_of_waits_has_the_95th_percentile_of_each_lane(
    viewer: Browser, queued: Callable[..., Ticket], query: Query
) -> None:
    for lane, waits in ((Lane.HIGH, (1, 2, 3)), (Lane.BATCH, (10, 30, 20, 50, 80))):
        for wait_s in waits:
            ticket = queued(lane=lane)
            query(
                "UPDATE jobs SET started_at = date_bin('30 s', now(), '2000-01-01') - interval '10 minutes', "
                "created_at = date_bin('30 s', now(), '2000-01-01') - interval '10 minutes' - :wait * interval '1 s' "
                "WHERE id = :id",
                id=ticket.job_id,
                wait=wait_s,
            )
    [(span,)] = query("SELECT DISTINCT extract(epoch FROM started_at) FROM jobs")
    chart = Chart(viewer.get("/charts/waits.svg?hours=1").text)
    # Of three waits, nine tenths of the way from the second to the third; of five, four fifths from the fourth.
    for lane, p95 in (("high", 2.9), ("batch", 50 + 0.8 * 30)):
        assert near(chart.points[lane], steps([(span, p95)], 30)), lane
    assert chart.points["normal"] == chart.points["low"] == []
    found = query("SELECT lane, requests, p50_wait_s, p95_wait_s, p99_wait_s FROM waits_per_hour ORDER BY lane")
    assert found == [
        ("batch", 5, 30, pytest.approx(74), pytest.approx(78.8)),
        ("high", 3, 2, pytest.approx(2.9), pytest.approx(2.98)),
    ]


def test_the_charts_of_costs_have_the_days_and_the_split_of_the_rows(
    viewer: Browser, charged: UUID, query: Query
) -> None:
    query("UPDATE jobs SET route = CASE WHEN cache = 'miss' OR notes IS NULL THEN 'overflow' ELSE 'pool' END")
    chart = Chart(viewer.get(f"/charts/routes.svg?month={MONTH:%Y-%m}").text)
    days = (after(MONTH) - MONTH).days
    for route, name in (("pool", "own hosts"), ("overflow", "paid API")):
        found = query(
            f"{ENTRIES} SELECT extract(day FROM at AT TIME ZONE 'UTC')::int, sum(full_usd) "
            "FROM entries JOIN (SELECT id AS job_id, route FROM jobs) j USING (job_id) "
            "WHERE route = :route AND at >= :month AND at < :until GROUP BY 1",
            **{"route": route, "month": MONTH, "until": after(MONTH)},
        )
        assert found, route
        usd = dict(found)
        expected = [float(usd.get(day, 0)) for day in range(1, days + 1)]
        assert chart.bars[name] == pytest.approx(expected, abs=1e-3), name

    chart = Chart(viewer.get(f"/charts/split.svg?pool=chat&month={MONTH:%Y-%m}").text)
    [(requests, api)] = query(
        "SELECT count(*), sum(api_usd) FROM ledger WHERE kind = 'compute' AND at >= :since AND at < :until",
        **{"since": min(BILLS), "until": OPEN},
    )
    usd_per_hour = float(sum(bill for bill, _ in BILLS.values())) / HOST_HOURS
    served, usd_per_request = requests / HOST_HOURS, float(api) / requests
    assert near(chart.points["served"], [(served, usd_per_hour / served)])
    assert near(chart.points["split point"], [(usd_per_hour / usd_per_request, usd_per_request)])
    assert [y for _, y in chart.points["paid API"]] == pytest.approx([usd_per_request] * 2, rel=1e-3)
    own = chart.points["own host"]
    assert [y for _, y in own] == pytest.approx([usd_per_hour / x for x, _ in own], rel=1e-2)
