"""The chart of one or more records: demand, capacity, waiting jobs and decisions over time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bed.fleet.record import Record
from bed.fleet.stack import HOST_JOBS_PER_S

DEMAND, READY, REQUESTED, DEPTH, UP, DOWN = "#c2410c", "#1d4ed8", "#93b4f5", "#52525b", "#15803d", "#a21caf"
GRID = "#e5e7eb"
#: Demand is drawn as means over so many samples.
SMOOTH = 4


def draw(path: Path, title: str, records: Mapping[str, Record], cap: int) -> None:
    """Write a PNG with a row for each record."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 1.2 + 2.4 * len(records)), layout="constrained", facecolor="white")
    rows = figure.subplots(len(records), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (name, record) in zip(rows, records.items(), strict=True):
        _row(axes, name, record, cap)
    load = next(iter(records.values())).load
    rows[0].set_xlim(0, load.seconds)
    rows[0].set_ylim(bottom=0)
    rows[-1].set_xlabel("seconds since the first job", fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    handles, labels = rows[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    figure.savefig(path, format="png", dpi=100)


def _row(axes: Any, name: str, record: Record, cap: int) -> None:
    samples = [sample for sample in record.samples if 0 <= sample.at_s <= record.load.seconds]
    times = [sample.at_s for sample in samples]
    depth = axes.twinx()
    depth.fill_between(times, [sample.depth for sample in samples], color=DEPTH, alpha=0.3, linewidth=0)
    depth.set_ylim(0, 1.05 * cap)
    depth.set_ylabel("waiting jobs", fontsize=9, color=DEPTH)
    axes.fill_between([], [], color=DEPTH, alpha=0.3, linewidth=0, label="waiting jobs, up to the cap")
    axes.set_zorder(depth.get_zorder() + 1)
    axes.patch.set_visible(False)
    count = [sample.hosts + sample.requested for sample in samples]
    axes.fill_between(times, count, step="post", color=REQUESTED, alpha=0.35, linewidth=0, label="ordered hosts")
    axes.step(
        times, [sample.hosts for sample in samples], where="post", color=READY, linewidth=1.4, label="ready hosts"
    )
    axes.plot(*_demand(record), color=DEMAND, linewidth=1.1, label="demand, in saturated hosts")
    for sign, marker, color, label in ((1, "^", UP, "order"), (-1, "v", DOWN, "removal")):
        marks = [(each.at_s, each.target) for each in record.changes if (each.target - each.hosts) * sign > 0]
        axes.scatter(*_columns(marks), s=34, marker=marker, color=color, label=label, zorder=3)
    told = (
        f"refused {record.refused_share:.1%} · p95 wait {record.p95_wait_s:.1f} s · "
        f"{record.host_s / 60:.1f} host-minutes · {record.killed} killed"
    )
    axes.set_title(name, loc="left", fontsize=10, fontweight="bold")
    axes.set_title(told, loc="right", fontsize=9, color="#374151")
    axes.set_ylabel("hosts", fontsize=9)
    for each in (axes, depth):
        each.tick_params(labelsize=8, length=2)
        each.spines["top"].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.7)


def _demand(record: Record) -> tuple[list[float], list[float]]:
    times, rates, samples = [], [], record.samples
    for first in range(0, len(samples) - SMOOTH, SMOOTH):
        part = samples[first : first + SMOOTH + 1]
        seconds = part[-1].at_s - part[0].at_s
        times.append(part[0].at_s)
        rates.append(sum(sample.offered for sample in part[1:]) / seconds / HOST_JOBS_PER_S)
    return times, rates


def _columns(points: list[tuple[float, int]]) -> tuple[list[float], list[int]]:
    return [time for time, _ in points], [place for _, place in points]
