"""The chart of one or more records: demand, capacity, waiting jobs and decisions over time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pygal

from bed.fleet.record import Record
from bed.fleet.stack import HOST_JOBS_PER_S
from headrace.charts import BLUE, GREEN, PINK, RED, SKY, Panel, options, scale, sheet, stepped

GREY = "#7a828c"
#: Samples of one mean: demand is drawn as means.
SMOOTH = 4
#: Of a panel.
HEIGHT = 220


def draw(path: Path, title: str, records: Mapping[str, Record], cap: int) -> None:
    """Write an SVG with a panel for each record."""
    counts = [sample.hosts + sample.requested for record in records.values() for sample in record.samples]
    demands = [rate for record in records.values() for _, rate in _demand(record)]
    labels, jobs = scale(max(counts + demands)), scale(cap)
    end = next(iter(records.values())).load.seconds
    axes = {
        "range": (0, labels[-1]),
        "y_labels": labels,
        "secondary_range": (0, jobs[-1]),
        "xrange": (0, end),
        "x_value_formatter": lambda second: f"{second:.0f} s",
    }
    panels = [Panel(name, _note(record), _chart(record, axes)) for name, record in records.items()]
    path.write_text(sheet(title, HEIGHT, panels), encoding="utf-8")


def _chart(record: Record, axes: dict[str, Any]) -> pygal.XY:
    samples = [sample for sample in record.samples if 0 <= sample.at_s <= record.load.seconds]
    chart = pygal.XY(**options(".3", (SKY, BLUE, RED, GREEN, PINK, GREY), **axes))
    chart.add("ordered hosts", stepped([(each.at_s, each.hosts + each.requested) for each in samples]), fill=True)
    chart.add("ready hosts", stepped([(each.at_s, each.hosts) for each in samples]))
    chart.add("demand", _demand(record))
    for sign, label in ((1, "order"), (-1, "removal")):
        marks = [(each.at_s, each.target) for each in record.changes if (each.target - each.hosts) * sign > 0]
        chart.add(label, marks, stroke=False, show_dots=True)
    chart.add("waiting (right)", [(each.at_s, each.depth) for each in samples], secondary=True, fill=True)
    return chart


def _note(record: Record) -> str:
    return (
        f"refused {record.refused_share:.1%} · p95 wait {record.p95_wait_s:.1f} s · "
        f"{record.host_s / 60:.1f} host-minutes · {record.killed} killed"
    )


def _demand(record: Record) -> list[tuple[float, float]]:
    found, samples = [], record.samples
    for first in range(0, len(samples) - SMOOTH, SMOOTH):
        part = samples[first : first + SMOOTH + 1]
        seconds = part[-1].at_s - part[0].at_s
        found.append((part[0].at_s, sum(sample.offered for sample in part[1:]) / seconds / HOST_JOBS_PER_S))
    return [(at_s, rate) for at_s, rate in found if 0 <= at_s <= record.load.seconds]
