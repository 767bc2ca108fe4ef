"""What each step of a job's way costs, in processor microseconds: at the door, and what a worker asks of the servers.

The budget of `benchmarks/README.md`. Runs the product's parts in this process, each step by itself.
"""

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table

from bed.steps.door import AT_ONCE, POLL, Door
from bed.steps.meter import Meter, Used
from bed.steps.worker import Worker
from bed.testbed import Testbed, console, line_of, rounds

#: Everything but the servers and the tables.
ALL = ("web", "ops", "gpu", "overflow", "webhooks", "control", "beat", "flower")


def measure(number: int, jobs: int) -> Mapping[str, Used]:
    """Every step in turn, round after round. The first round warms up and does not count."""
    with Testbed({}, ALL) as bed, closing(Door(bed)) as door, closing(Worker(bed)) as worker:
        meter = Meter(bed.stack.report.pids)
        warming = Meter(bed.stack.report.pids)
        for no in rounds(number + 1, lambda no: f"round {no - 1}" if no > 1 else "warming up"):
            now = meter if no > 1 else warming
            door.measure(now, jobs)
            worker.measure(now, door.specs)
        return meter.medians()


def show(found: Mapping[str, Used]) -> None:
    """The budget, as a table."""
    table = Table("step", header_style="bold", title="processor us for each job, medians of the rounds")
    for heading in ("this process", "postgres", "valkey", "together"):
        table.add_column(heading, justify="right")
    for name, used in found.items():
        figures = (used.own_us, used.postgres_us, used.valkey_us, used.total_us)
        table.add_row(name, *(f"{figure:.0f}" for figure in figures))
    console.print(table)


@click.command()
@click.option("--rounds", "number", type=click.IntRange(min=1), default=3, show_default=True, help="The median counts.")
@click.option("--jobs", type=click.IntRange(min=64), default=2000, show_default=True, help="Of each step in a round.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write figures.")
def main(number: int, jobs: int, file: Path | None) -> None:
    """Measure each step of a submit and of a worker by itself, beside a bare Flask hello.

    Starts Postgres and Valkey in a temporary folder, and makes the parts of a web process and of a worker in this one.
    A step is done for all jobs before the next one begins. What it costs is processor time: of this process with all
    its threads, and of the servers from /proc. So it means something on a machine that others use, too; waiting costs
    nothing. Steps that jobs share are measured in shares of 8 at the door and of 16 at the worker.

    The last line is name=value pairs, all in microseconds for each job: submit_us, poll_us and refused_us (whole
    requests without the HTTP server: a plain job, a poll and a refusal; the first two with the servers), hello_us, and
    worker_us (the worker's steps together).

    \b
    bin/headrace python benchmarks/steps.py
    """
    found = measure(number, jobs)
    show(found)
    figures = summary(found)
    if file is not None:
        steps = {name: asdict(used) for name, used in found.items()}
        file.write_text(json.dumps({"figures": figures, "steps": steps}, indent=2) + "\n")
    print(line_of(figures))


def summary(found: Mapping[str, Used]) -> dict[str, object]:
    """What the last line says."""
    of_worker = ("claim share", "notice of a claim, share", "finish share", "notice of an end, share")
    return {
        "submit_us": found[AT_ONCE].total_us,
        "poll_us": found[POLL].total_us,
        "refused_us": found["whole, refused"].total_us,
        "hello_us": found["frame: a Flask hello"].total_us,
        "worker_us": sum(found[name].total_us for name in of_worker),
    }


if __name__ == "__main__":
    main()
