"""The chart of a backtest: for each policy, demand, hosts and decisions over time."""

import math
from collections.abc import Sequence
from typing import Any

import pygal

from headrace.charts import BLUE, GREEN, PINK, RED, SKY, WIDTH, Panel, options, scale, sheet, stepped
from headrace.cli.backtest.load import OfferedLoad, smooth
from headrace.cli.backtest.runs import CaseResult
from headrace.cli.backtest.trace import MINUTE_S
from headrace.cli.backtest.world import World

#: Longer traces are drawn in days.
HOURS_UP_TO_S = 2 * 86_400.0
#: With more changes than this, their marks would hide the lines.
MOST_MARKS = 400
#: Demand is drawn as means over so many minutes, or over more in a long trace: a point for each pixel is enough.
SMOOTH_MINUTES = 5
#: The steps between the labels of the time, in hours or days: the first of these that gives at most `LABELS`.
STEPS = (0.25, 0.5, 1, 2, 3, 6, 12, 24, 48)
LABELS = 12
#: Of a panel.
HEIGHT = 150


def draw(title: str, load: OfferedLoad, world: World, results: Sequence[CaseResult]) -> str:
    """An SVG file with a panel for each policy. All have the same axes."""
    unit_s, unit = (3600.0, "h") if load.seconds <= HOURS_UP_TO_S else (86_400.0, "d")
    demand = _demand(load, world, unit_s)
    counts = [instant.ready + instant.requested for result in results for instant in result.instants]
    labels = scale(max([*counts, *(hosts for _, hosts in demand)]))
    axes = {"range": (0, labels[-1]), "y_labels": labels, **_times(load.seconds / unit_s, unit)}
    return sheet(
        title, HEIGHT, [Panel(each.case.name, _note(each), _chart(each, demand, unit_s, axes)) for each in results]
    )


def _demand(load: OfferedLoad, world: World, unit_s: float) -> list[tuple[float, float]]:
    minutes = math.ceil(len(load.demand) / WIDTH)
    means = smooth(load.demand, max(SMOOTH_MINUTES, minutes)) / world.tokens_per_s
    return [
        ((minute + 0.5) * MINUTE_S / unit_s, float(means[minute]))
        for minute in range(minutes // 2, len(means), minutes)
    ]


def _times(end: float, unit: str) -> dict[str, Any]:
    step = next((step for step in STEPS if end / step <= LABELS), end / LABELS)
    labels = [{"value": n * step, "label": f"{n * step:.4g} {unit}"} for n in range(math.floor(end / step) + 1)]
    return {"xrange": (0, end), "x_labels": labels}


def _chart(result: CaseResult, demand: Sequence[tuple[float, float]], unit_s: float, axes: dict[str, Any]) -> pygal.XY:
    """One policy: ordered and ready hosts, demand, and a mark for each change at the number that it led to."""
    chart = pygal.XY(**options(".3", (SKY, BLUE, RED, GREEN, PINK), **axes))
    count = [(each.second / unit_s, each.ready + each.requested) for each in result.instants]
    chart.add("ordered hosts", stepped(count), fill=True, stroke_style={"width": 1})
    chart.add("ready hosts", stepped([(each.second / unit_s, each.ready) for each in result.instants]))
    chart.add("demand", list(demand), stroke_style={"width": 1})
    after = {each.second: each.ready + each.requested for each in result.instants}
    changes = result.changes if len(result.changes) <= MOST_MARKS else []
    for sign, label in ((1, "order"), (-1, "removal")):
        marks = [(second / unit_s, after[second]) for second, change in changes if change * sign > 0]
        chart.add(label, marks, stroke=False, show_dots=True, dots_size=2.5)
    return chart


def _note(result: CaseResult) -> str:
    found = result.figures
    return (
        f"{found.usd_per_1000:.2f} USD/1k · p95 {found.p95_wait_s:.0f} s · 429 {found.refused_share:.2%} · "
        f"spilled {found.spilled_share:.2%} · use {found.use:.0%}, at peak {found.peak_use:.0%}"
    )
