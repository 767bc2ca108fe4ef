"""How far the one Postgres and the one Valkey of a cluster go, from what each thing costs them.

The claim: 100 web processes and 1,000 workers by themselves use little of the servers. What limits a cluster is printed
beside it. Runs the product's parts in this process, on real servers with the rows of these workers.
"""

import json
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.table import Table

from bed.scale.cluster import Cluster
from bed.steps.door import Door
from bed.steps.meter import Meter, Used
from bed.steps.worker import Worker
from bed.testbed import BARE, Testbed, console, line_of, rounds

#: How often a second a web process asks how the fleets stand, for each pool, and what the budgets have left.
STANDINGS, BALANCES = 4, 2
#: Pools, and the paid API.
POOLS = 2
#: Jobs that share a call, and so ring once.
SHARE = 8
#: The share of the workers that wait for jobs.
WAITING = 0.1
#: What a job costs the servers, by the names of `steps.py`.
OF_A_JOB = (
    "reserve share",
    "insert share",
    "commit share",
    "claim share",
    "notice of a claim, share",
    "finish share",
    "notice of an end, share",
)
#: The most of each server that the cluster may use without any job, in cores.
GOALS = {"idle_postgres_cores": 1.5, "idle_valkey_cores": 0.1}


@dataclass(frozen=True, slots=True)
class Size:
    """A cluster."""

    web: int
    workers: int
    jobs_per_s: int

    def __str__(self) -> str:
        return f"{self.web} web, {self.workers:,} workers, {self.jobs_per_s:,}/s"


SIZES = (Size(2, 8, 100), Size(10, 100, 1000), Size(100, 1000, 10_000))


def times(size: Size, *, shares: bool) -> dict[str, float]:
    """How often a second the cluster does each thing. Args: shares: one web process reads the fleets for all."""
    standings = STANDINGS * POOLS * size.web
    return {
        "read the fleets": STANDINGS if shares else standings,
        "ask how the fleets stand": standings if shares else 0,
        "read the budgets": BALANCES * size.web,
        "renew a lease": size.workers,
        "wake a worker": size.jobs_per_s / SHARE * size.workers * WAITING,
        **dict.fromkeys(OF_A_JOB, size.jobs_per_s),
    }


def cores(found: Mapping[str, Used], often: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Cores of Postgres and of Valkey for each thing."""
    return {name: (found[name].postgres_us * n / 1e6, found[name].valkey_us * n / 1e6) for name, n in often.items()}


def measure(number: int, workers: int, apps: int) -> Mapping[str, Used]:
    """Everything in turn, round after round. The first round warms up and does not count."""
    with Testbed({}, BARE) as bed, closing(Cluster(bed, workers, apps)) as cluster:
        meter, warming = Meter(bed.stack.report.pids), Meter(bed.stack.report.pids)
        with closing(Door(bed)) as door, closing(Worker(bed)) as worker:
            for no in rounds(number + 1, lambda no: f"round {no - 1}" if no > 1 else "warming up"):
                now = meter if no > 1 else warming
                cluster.measure(now)
                door.measure(now, 1000)
                worker.measure(now, door.specs)
        return meter.medians()


def show(found: Mapping[str, Used], *, shares: bool) -> None:
    """What each thing costs, and the cores that clusters of three sizes use."""
    table = Table("", "postgres us", "valkey us", header_style="bold", title="cores of Postgres + of Valkey")
    for size in SIZES:
        table.add_column(str(size), justify="right")
    needed = [cores(found, times(size, shares=shares)) for size in SIZES]
    for name in needed[0]:
        used = found[name]
        cells = (f"{of[name][0]:.2f} + {of[name][1]:.2f}" for of in needed)
        table.add_row(name, f"{used.postgres_us:.0f}", f"{used.valkey_us:.0f}", *cells)
    totals = [[sum(each[i] for each in of.values()) for i in (0, 1)] for of in needed]
    table.add_row("together", "", "", *(f"{postgres:.2f} + {valkey:.2f}" for postgres, valkey in totals))
    console.print(table)


def summary(found: Mapping[str, Used]) -> dict[str, object]:
    """What the last line says, of the largest cluster."""
    on, off = (cores(found, times(SIZES[-1], shares=shares)) for shares in (True, False))
    idle = {name for name in on if name not in OF_A_JOB and name != "wake a worker"}
    job = [found[name] for name in OF_A_JOB]
    return {
        "idle_postgres_cores": sum(on[name][0] for name in idle),
        "idle_valkey_cores": sum(on[name][1] for name in idle),
        "idle_postgres_cores_off": sum(off[name][0] for name in idle),
        "wake_valkey_cores": on["wake a worker"][1],
        "jobs_per_postgres_core": 1e6 / sum(used.postgres_us for used in job),
        "jobs_per_valkey_core": 1e6 / sum(used.valkey_us for used in job),
        "refuse_among_knocks_us": found["refuse while every app knocks"].valkey_us,
    }


@click.command()
@click.option("--rounds", "number", type=click.IntRange(min=1), default=3, show_default=True, help="The median counts.")
@click.option("--workers", type=click.IntRange(min=1), default=1000, show_default=True, help="Rows, and their waits.")
@click.option("--apps", type=click.IntRange(min=1), default=10_000, show_default=True, help="Each knocks, and pays.")
@click.option("--off", type=click.Choice(["sharing"]), help="Show the table as if each web process read the fleets.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write figures.")
def main(number: int, workers: int, apps: int, off: str | None, file: Path | None) -> None:
    """Measure what a cluster costs its servers, and print the cores that three sizes of it need.

    Starts Postgres and Valkey in a temporary folder, with the rows of 1,000 workers that run 10 jobs each. Figures are
    processor time of the servers, from /proc, so they mean something on a machine that others use, too.

    The last line is name=value pairs, of 100 web processes and 1,000 workers: idle_postgres_cores and
    idle_valkey_cores, which they use without any job; the first also with each process reading the fleets (_off);
    wake_valkey_cores, what the bell costs at 10,000 jobs a second while a tenth of the workers wait; the jobs a second
    that a core of each server carries; and what a refusal costs Valkey while every app knocks.

    \b
    bin/headrace python benchmarks/scale.py --off sharing
    """
    found = measure(number, workers, apps)
    show(found, shares=off is None)
    figures = summary(found)
    if file is not None:
        steps = {name: asdict(used) for name, used in found.items()}
        file.write_text(json.dumps({"figures": figures, "steps": steps}, indent=2) + "\n")
    print(line_of(figures))
    sys.exit(any(float(str(figures[name])) > most for name, most in GOALS.items()))


if __name__ == "__main__":
    main()
