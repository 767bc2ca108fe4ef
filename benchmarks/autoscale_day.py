"""A day with a peak from 9 to 11, in seven minutes: hosts for the peak, and the minimum for the rest of the day.

The claim: the hosts of a peak that the calendar announces are ready when it begins, are used to 0.85, and are gone
after it. Knows the system from outside: HTTP to submit, SQL to measure.
"""

import json
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import click

from bed.fleet.arrivals import Load, Stretch
from bed.fleet.chart import draw
from bed.fleet.record import Record, use_between
from bed.fleet.run import Order, run
from bed.fleet.stack import HOST_JOBS_PER_S, SLOTS, Fleet
from bed.testbed import Testbed, console, line_of
from headrace.cli.parameters import svg

#: Hours of each rate, and the rate in saturated hosts.
DAY = ((7, 0.2), (2, 0.4), (2, 6.3), (7, 0.4), (6, 0.2))
PEAK_FROM, PEAK_TO = 9, 11
WINDOW_S = 30.0
CAP = 200
GOAL = 0.85
#: The minimum is 1. Few jobs come unevenly: for a moment, a second host may be due.
MOST_OFF_PEAK = 1.2
MOST_REFUSED = 0.01
#: The day begins so long after its calendar was written: the stack is up by then, also on a busy machine.
START_S = 90.0
#: Hosts of the peak may be there so long before it and after it: they are ordered before, and drained after.
BEFORE_S, AFTER_S = 20.0, 60.0
CHART = Path(tempfile.gettempdir()) / "autoscale_day.svg"


def load_of(hour_s: float) -> Load:
    """The day, if an hour takes so long."""
    return Load(tuple(Stretch(hours * hour_s, hosts * HOST_JOBS_PER_S) for hours, hosts in DAY), is_even=True)


def peak_hosts() -> int:
    """A fleet that is fixed at the peak: by the same square root as `predictive`."""
    busy = max(hosts for _, hosts in DAY)
    return int(-(-(busy + 0.5 * (busy / SLOTS) ** 0.5) // 1))


def calendar(begins_at: float, hour_s: float) -> str:
    """The peak as a one-off event at its place in the compressed day."""
    start, end = (datetime.fromtimestamp(begins_at + hour * hour_s, UTC) for hour in (PEAK_FROM, PEAK_TO))
    rate = max(hosts for _, hosts in DAY) * HOST_JOBS_PER_S
    return f"""
[[scaling.events]]
name = "9 to 11"
starts_at = {start.isoformat()}
ends_at = {end.isoformat()}
jobs_per_s = {rate:.2f}
"""


def measure(hour_s: float, seed: int, *, has_calendar: bool) -> tuple[Record, float]:
    """A day, and the use of slots in its peak."""
    begins_at, uses = time.time() + START_S, []

    def look(bed: Testbed, began: float) -> None:
        uses.append(use_between(bed, began, PEAK_FROM * hour_s, PEAK_TO * hour_s))

    events = calendar(begins_at, hour_s) if has_calendar else ""
    fleet = Fleet("predictive", WINDOW_S, peak_hosts(), peak_hosts(), CAP, events)
    name = "calendar" if has_calendar else "no calendar"
    return run(Order(name, fleet, load_of(hour_s), seed, begins_at), look), uses[0]


def figures_of(record: Record, use: float, hour_s: float) -> dict[str, Any]:
    """What the last line says of a day."""
    start_s, end_s = PEAK_FROM * hour_s, PEAK_TO * hour_s
    quiet = record.hosts_within(0, start_s - BEFORE_S) + record.hosts_within(end_s + AFTER_S, record.load.seconds)
    return {
        "peak_use": use,
        "hosts_at_9": max(record.hosts_within(start_s, start_s + 1)),
        "hosts_off_peak": fmean(quiet),
        "host_hours_vs_fixed": record.host_s / (peak_hosts() * record.load.seconds),
        "refused_share": record.refused_share,
        "p95_wait_s": record.p95_wait_s,
        "lost": record.lost,
        "killed": record.killed,
        "started_twice": record.twice,
    }


@click.command()
@click.option(
    "--hour", "hour_s", type=click.FloatRange(min=8), default=16, show_default=True, help="Seconds of an hour."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the arrivals.")
@click.option("--off", type=click.Choice(["calendar"]), help="A second day, whose peak is not announced.")
@click.option(
    "--chart",
    type=click.Path(dir_okay=False, path_type=Path),
    default=CHART,
    show_default=True,
    metavar="FILE",
    callback=svg,
    help="The SVG.",
)
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write all rows.")
def main(hour_s: float, seed: int, off: str | None, chart: Path, file: Path | None) -> None:
    """Run a day with a peak from 9 to 11 in seven minutes, on hosts that the autoscaler starts and ends.

    Starts a stack of `headrace up --scale`, whose hosts are worker processes of this machine with a simulated engine,
    ready 10 s and a start after their order. Jobs arrive as a Poisson process: 0.2 hosts' worth at night, 0.4 by day,
    6.3 in the peak, all of one size. The pool may have as many hosts as a fleet that is fixed at the peak.

    The calendar announces the peak, as one event at its place in the compressed day: a weekly event goes by the clock
    on the wall, which cannot be compressed. The autoscaler's own times are shortened so that 10 minutes are 30 s. The
    day is shortened eleven times as much, so that ordering and draining take more of it than of a real one.

    The last line is name=value pairs: peak_use, the slots in use in the peak as the engines report it; the hosts that
    are ready at 9, and their mean off the peak (20 s before it and 60 s after it aside); host-hours over those of a
    fleet fixed at the peak, which is computed; refused jobs; p95 of the wait; and jobs that were lost, killed or
    started twice. With --off calendar they follow for that day, with the suffix _off. The status is 1 when peak_use is
    below 0.85, when hosts were missing at 9 or more than 1.2 were there off the peak, when more than
    0.01 of the jobs were refused, or when a job was lost, killed or started twice.

    \b
    bin/headrace python benchmarks/autoscale_day.py
    bin/headrace python benchmarks/autoscale_day.py --off calendar
    """
    record, use = measure(hour_s, seed, has_calendar=True)
    figures, records = figures_of(record, use, hour_s), {"calendar": record}
    if off:
        without, use_off = measure(hour_s, seed, has_calendar=False)
        figures |= {f"{name}_off": value for name, value in figures_of(without, use_off, hour_s).items()}
        records["no calendar"] = without
    for name, each in records.items():
        for change in each.changes:
            console.print(
                f"{name:>11} {change.at_s / hour_s:4.1f} h  {change.hosts} to {change.target}  {change.reason}"
            )
    draw(chart, "A day with a peak from 9 to 11, compressed", records, CAP)
    console.print(f"The chart is in {chart}.")
    if file is not None:
        rows = {name: asdict(each) for name, each in records.items()}
        file.write_text(json.dumps({"figures": figures, "runs": rows}, indent=2) + "\n")
    print(line_of(figures))
    is_quiet = figures["hosts_off_peak"] <= MOST_OFF_PEAK and not (
        figures["lost"] or figures["killed"] or figures["started_twice"]
    )
    is_ready = figures["hosts_at_9"] >= peak_hosts() and figures["refused_share"] <= MOST_REFUSED
    sys.exit(0 if figures["peak_use"] >= GOAL and is_quiet and is_ready else 1)


if __name__ == "__main__":
    main()
