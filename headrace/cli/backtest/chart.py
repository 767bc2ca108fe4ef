"""The chart of a backtest: for each policy, demand, hosts and decisions over time."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.cli.backtest.model.load import OfferedLoad, smooth
from headrace.cli.backtest.model.world import World
from headrace.cli.backtest.runs import CaseResult
from headrace.cli.backtest.trace import MINUTE_S

if TYPE_CHECKING:
    from headrace.cli.backtest.arrays import Floats

DEMAND, READY, REQUESTED, UP, DOWN, GRID = "#c2410c", "#1d4ed8", "#93b4f5", "#15803d", "#a21caf", "#e5e7eb"
#: Longer traces are drawn in days.
HOURS_UP_TO_S = 2 * 86_400.0
#: With more changes than this, their marks would hide the lines.
MOST_MARKS = 400


def draw(path: Path, title: str, load: OfferedLoad, world: World, results: Sequence[CaseResult]) -> None:
    """Write a PNG with a row for each policy. Raises: OSError."""
    from matplotlib.figure import Figure

    unit_s, unit = (3600.0, "hours") if load.seconds <= HOURS_UP_TO_S else (86_400.0, "days")
    figure = Figure(figsize=(12, 1.2 + 1.75 * len(results)), layout="constrained", facecolor="white")
    rows = figure.subplots(len(results), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    demand = smooth(load.demand, 5) / world.tokens_per_s
    for axes, result in zip(rows, results, strict=True):
        _row(axes, result, demand, unit_s)
    rows[-1].set_xlabel(f"{unit} since the start", fontsize=9)
    rows[0].set_xlim(0, load.seconds / unit_s)
    rows[0].set_ylim(bottom=0)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    handles, labels = rows[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False, fontsize=9)
    figure.savefig(path, format="png", dpi=110)


def _row(axes: Any, result: CaseResult, demand: "Floats", unit_s: float) -> None:
    """One policy."""
    times = [instant.second / unit_s for instant in result.instants]
    ready = [instant.ready for instant in result.instants]
    count = [instant.ready + instant.requested for instant in result.instants]
    axes.fill_between(times, count, step="post", color=REQUESTED, alpha=0.35, linewidth=0, label="ordered hosts")
    axes.step(times, ready, where="post", color=READY, linewidth=1.3, label="ready hosts")
    minutes = [(minute + 0.5) * MINUTE_S / unit_s for minute in range(len(demand))]
    axes.plot(minutes, demand, color=DEMAND, linewidth=1.0, label="demand, in saturated hosts")
    _marks(axes, result, unit_s)
    found = result.figures
    told = (
        f"{found.usd_per_1000:.2f} USD/1k · p95 {found.p95_wait_s:.0f} s · 429 {found.refused_share:.2%} · "
        f"spilled {found.spilled_share:.2%} · use {found.use:.0%}, at peak {found.peak_use:.0%}"
    )
    axes.set_title(result.case.name, loc="left", fontsize=10, fontweight="bold")
    axes.set_title(told, loc="right", fontsize=9, color="#374151")
    axes.set_ylabel("hosts", fontsize=9)
    axes.tick_params(labelsize=8, length=2)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _marks(axes: Any, result: CaseResult, unit_s: float) -> None:
    """A mark for each change, at the number of hosts that it led to."""
    if len(result.changes) > MOST_MARKS:
        return
    after = {instant.second: instant.ready + instant.requested for instant in result.instants}
    for sign, marker, color, label in ((1, "^", UP, "order"), (-1, "v", DOWN, "removal")):
        times = [second for second, change in result.changes if change * sign > 0]
        places = [after[second] for second in times]
        axes.scatter([time / unit_s for time in times], places, s=11, marker=marker, color=color, label=label, zorder=3)
