"""Hosts before the demand, for real: ten times the load for 50 seconds, and then no more.

The claim: hosts are ordered before the queue reaches its cap, and are gone after the spike; no job is lost, killed or
started twice on the way; each step is a row that says why. Knows the system from outside: HTTP to submit, SQL to
measure.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bed.fleet.arrivals import Load, Stretch
from bed.fleet.chart import draw
from bed.fleet.record import Record
from bed.fleet.run import Order, run
from bed.fleet.stack import HOST_JOBS_PER_S, PROVISION_S, SLOTS, Fleet
from bed.reconciliation import LARGEST, reconcile
from bed.testbed import Testbed, console, line_of
from headrace.cli.parameters import svg
from headrace.store.money.cost_hours import Reconciliation

ARMS = ("predictive", "reactive", "fixed")
#: The counter-proof's: `predictive` with its drain, and without.
OFF_ARMS = ("predictive", "drain off")
#: In the counter-proof: how many jobs of a host run at once, and how much longer.
OFF_SLOTS = 16
#: Jobs a second before and after the spike: half of what one host can do.
CALM_PER_S = HOST_JOBS_PER_S / 2
BEFORE_S = 30.0
#: Ten minutes of the default settings.
WINDOW_S = 30.0
#: About what comes while the first new hosts start.
CAP = 150
MAX_HOSTS = 8
CHART = Path(tempfile.gettempdir()) / "autoscale_live.svg"


@dataclass(frozen=True, slots=True)
class Spike:
    """The load: calm, a multiple of it, calm."""

    times: float
    spike_s: float
    after_s: float

    @property
    def ends_s(self) -> float:
        """When the calm is back."""
        return BEFORE_S + self.spike_s

    @property
    def load(self) -> Load:
        """Its stretches."""
        calm = Stretch(BEFORE_S, CALM_PER_S), Stretch(self.after_s, CALM_PER_S)
        return Load((calm[0], Stretch(self.spike_s, CALM_PER_S * self.times), calm[1]))

    @property
    def peak_hosts(self) -> int:
        """The hosts of a fleet that is fixed at the peak: by the same square root as `predictive`."""
        busy = CALM_PER_S * self.times / HOST_JOBS_PER_S
        return int(-(-(busy + 0.5 * (busy / SLOTS) ** 0.5) // 1))


def show(records: Mapping[str, Record], spike: Spike) -> None:
    """A line for each run, and each step of its hosts."""
    title = f"{CALM_PER_S:.1f} jobs a second, {spike.times:g} times that for {spike.spike_s:g} s, a cap of {CAP}"
    table = Table("", header_style="bold", title=title)
    headings = ("accepted", "refused", "p95 wait s", "most waiting", "order after s", "refusal after s", "most hosts")
    for heading in (*headings, "ready in s", "gone after s", "host-minutes", "lost", "killed", "started twice"):
        table.add_column(heading, justify="right")
    for name, record in records.items():
        refusal_s, order_s = record.first_refusal_s(BEFORE_S), record.first_order_s(BEFORE_S)
        table.add_row(
            name,
            *(str(record.counts.accepted), f"{record.refused_share:.1%}", f"{record.p95_wait_s:.1f}"),
            str(max(sample.depth for sample in record.samples)),
            *("-" if each is None else f"{each - BEFORE_S:.1f}" for each in (order_s, refusal_s)),
            f"{max(record.hosts_within(0, spike.load.seconds)):g}",
            f"{record.provision_s:.1f}",
            _gone_after(record, spike),
            f"{record.host_s / 60:.1f}",
            *(str(each) for each in (record.lost, record.killed, record.twice)),
        )
    console.print(table)
    for name, record in records.items():
        for change in record.changes:
            applied = "" if change.applied_s is not None else " (not applied)"
            console.print(
                f"{name:>10} {change.at_s:6.1f} s  {change.hosts} to {change.target}  {change.reason}{applied}"
            )


def _gone_after(record: Record, spike: Spike) -> str:
    alone_s = record.alone_s(spike.ends_s, 1)
    return "-" if alone_s is None else f"{alone_s - spike.ends_s:.0f}"


def summary(records: Mapping[str, Record]) -> dict[str, Any]:
    """What the last line says."""
    on = records["predictive"]
    figures: dict[str, Any] = {
        "lost": sum(record.lost for record in records.values()),
        "killed": sum(record.killed for name, record in records.items() if name in ARMS),
        "refused_share": on.refused_share,
    }
    if "drain off" in records:
        return figures | {"killed_off": records["drain off"].killed}
    return figures | {
        "refused_share_reactive": records["reactive"].refused_share,
        "host_hours_vs_fixed": on.host_s / records["fixed"].host_s,
    }


def misses(records: Mapping[str, Record], spike: Spike) -> list[str]:
    """What does not hold, in words."""
    on, found = records["predictive"], []
    for name, record in records.items():
        if name not in ARMS:
            continue
        facts = {"lost": record.lost, "killed": record.killed, "started twice": record.twice}
        facts |= {"without an answer": record.counts.accepted - record.counts.succeeded}
        found += [f"{name}: {number} jobs are {fact}" for fact, number in facts.items() if number]
        if record.unexplained:
            found.append(f"{name}: {record.unexplained} hosts without a decision")
    order_s, refusal_s = on.first_order_s(BEFORE_S), on.first_refusal_s(BEFORE_S)
    if order_s is None or (refusal_s is not None and refusal_s < order_s):
        found.append("no host was ordered before the queue reached its cap")
    alone_s = on.alone_s(spike.ends_s, 1)
    if on.left != 1 or alone_s is None or alone_s > spike.load.seconds:
        found.append("hosts were left after the spike")
    if "reactive" in records and on.refused_share > records["reactive"].refused_share:
        found.append("more was refused than by `reactive`")
    if "drain off" in records and not records["drain off"].killed:
        found.append("nothing was killed without the drain: this proves nothing")
    return found


@click.command()
@click.option("--times", type=click.FloatRange(min=2), default=10, show_default=True, help="The spike, over the calm.")
@click.option("--seconds", type=click.FloatRange(min=10), default=50, show_default=True, help="The spike's length.")
@click.option("--after", type=click.FloatRange(min=10), default=75, show_default=True, help="Seconds of calm after it.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the arrivals.")
@click.option(
    "--off", type=click.Choice(["drain"]), help="Run `predictive` alone, with its drain and without, on longer jobs."
)
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
def main(
    times: float, seconds: float, after: float, seed: int, off: str | None, chart: Path, file: Path | None
) -> None:
    """Offer ten times the load for 50 s, and watch the autoscaler start and end hosts.

    Starts a stack for each policy, one after the other, and offers each the same jobs, which arrive as a Poisson
    process: `predictive`, `reactive`, and a fleet that is `fixed` at what the peak needs. A host is a worker process
    of this machine with a simulated engine (`headrace up --scale`), and takes 10 s from its order to its start, as if a
    provider prepared it. Nothing announces the spike. The paid API is off: what does not fit is refused.

    All times of the autoscaler are the defaults, shortened so that 10 minutes are 30 s. Prices and margins are the
    defaults.

    The last line is name=value pairs: lost, jobs that were accepted and did not end, and killed, attempts that did not
    succeed, of all policies; the share of jobs that `predictive` refused, and `reactive`; host-hours of `predictive`
    over those of the fixed fleet. With --off drain, `predictive` runs twice, on jobs that take four times as long, so
    that hosts are busy when they are removed; killed_off is what is killed where the oldest hosts are ended at once.
    difference_share is how far the ledger is from host hours times their price in any run, as a part of these.

    The status is 1 when a job was lost, killed, started twice or not answered, when no host was ordered before the
    queue reached its cap, when hosts were left after the spike, when a host began or ended without a row in
    `decisions`, when `reactive` refused less, when nothing was killed without the drain, or when the ledger differs by
    0.001 or more.

    \b
    bin/headrace python benchmarks/autoscale_live.py
    bin/headrace python benchmarks/autoscale_live.py --off drain --json live.json
    """
    spike = Spike(times, seconds, after)
    if off is None:
        fleets = {name: Fleet(name, WINDOW_S, MAX_HOSTS, spike.peak_hosts, CAP) for name in ARMS}
    else:
        with_drain = Fleet("predictive", WINDOW_S, MAX_HOSTS, spike.peak_hosts, CAP, slots=OFF_SLOTS)
        fleets = dict(zip(OFF_ARMS, (with_drain, replace(with_drain, drains=False)), strict=True))
    bills: dict[str, Reconciliation] = {}

    def look(name: str) -> Callable[[Testbed, float], None]:
        return lambda bed, _: bills.update({name: reconcile(bed)})

    records = {name: run(Order(name, fleet, spike.load, seed), look(name)) for name, fleet in fleets.items()}
    show(records, spike)
    for name, bill in bills.items():
        console.print(f"{name:>10} {bill}")
    draw(chart, f"A spike of {times:g} times the load, hosts ready {PROVISION_S:g} s after their order", records, CAP)
    console.print(f"The chart is in {chart}.")
    figures = summary(records) | {"difference_share": float(max(bill.share for bill in bills.values()))}
    if file is not None:
        rows = {name: asdict(record) for name, record in records.items()}
        file.write_text(json.dumps({"figures": figures, "runs": rows}, indent=2) + "\n")
    missed = misses(records, spike)
    if figures["difference_share"] >= LARGEST:
        missed.append("the ledger is not the hosts' bill")
    for line in missed:
        console.print(line, style="red")
    print(line_of(figures))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
