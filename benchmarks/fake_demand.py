"""Demand that cannot be faked: one app that repeats its refused requests 20 times a second, beside ten that give up.

The claim: the loop asks for no host and costs the others no place, while a launch through one app, ten times its load,
is followed as if nothing was discounted. Knows the system from outside: HTTP to submit, SQL to measure.
"""

import http.client
import json
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.parse import urlsplit

import click
from rich.table import Table

from bed.fleet.arrivals import Load, Offered, Stretch, body_of, offer
from bed.fleet.record import Record, read
from bed.fleet.stack import HOST_JOBS_PER_S, Fleet
from bed.load import percentile
from bed.testbed import Testbed, bearer, console, line_of, wait_until
from headrace.config import Settings
from headrace.connections import postgres
from headrace.store import apps, keys

HONEST = 10
#: Of eleven apps together, in hosts: before and after the rise, and in it, when it is more than the pool may have.
CALM_HOSTS, BUSY_HOSTS = 0.5, 3.5
#: Of the app that launches, before and after, while the others stay calm.
LAUNCH_HOSTS, TIMES = 0.2, 10
BEFORE_S, BUSY_S, AFTER_S = 15.0, 40.0, 5.0
WINDOW_S, MAX_HOSTS, CAP = 30.0, 3, 40
#: The pause of the loop between two submits of the same request.
LOOP_EVERY_S = 0.05
LONGEST_END_S = 120.0
GOAL = 1.1

FLEET = Fleet("predictive", WINDOW_S, MAX_HOSTS, MAX_HOSTS, CAP)


def _load(calm_hosts: float, busy_hosts: float) -> Load:
    calm, busy = calm_hosts * HOST_JOBS_PER_S, busy_hosts * HOST_JOBS_PER_S
    return Load((Stretch(BEFORE_S, calm), Stretch(BUSY_S, busy), Stretch(AFTER_S, calm)))


#: Of one app.
RISE = _load(CALM_HOSTS / (HONEST + 1), BUSY_HOSTS / (HONEST + 1))
CALM = _load(CALM_HOSTS / (HONEST + 1), CALM_HOSTS / (HONEST + 1))
LAUNCH = _load(LAUNCH_HOSTS, TIMES * LAUNCH_HOSTS)


@dataclass(frozen=True, slots=True)
class Arm:
    """One run. Attributes: honest: each honest app's load. eleventh: the eleventh's. loops: it does not give up."""

    honest: Load = RISE
    eleventh: Load = RISE
    loops: bool = False
    discounts: bool = True


ARMS = {
    "alone": Arm(),
    "loop": Arm(loops=True),
    "launch": Arm(CALM, LAUNCH),
    "launch, nothing discounted": Arm(CALM, LAUNCH, discounts=False),
}
OFF_ARM = {"loop, nothing discounted": Arm(loops=True, discounts=False)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an arm.

    Attributes:
        record: its submits are those of the honest apps.
        tries: submits of the eleventh app.
        needs: the hosts that each decision found necessary during the load, not limited by the most that the pool may
            have.
        discounted: refused jobs that did not count as demand.
    """

    record: Record
    tries: int
    needs: Sequence[int]
    discounted: int


def insist(url: str, key: Mapping[str, str], load: Load, seed: int) -> int:
    """Submit each job when it is due, and each refused request again until it is accepted; returns how often."""
    address, tries, began = urlsplit(url), 0, time.monotonic()
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    headers = {"Content-Type": "application/json", **key}
    for job in load.arrivals(seed):
        time.sleep(max(0.0, began + job.at_s - time.monotonic()))
        status = 429
        while status == 429 and time.monotonic() - began < load.seconds:
            connection.request("POST", "/v1/jobs", body_of(job), headers)
            response = connection.getresponse()
            response.read()
            status, tries = response.status, tries + 1
            time.sleep(LOOP_EVERY_S)
    connection.close()
    return tries


def make_keys(bed: Testbed) -> list[str]:
    """A key of each honest app, and one of the eleventh."""
    pepper = (bed.folder / "pepper").read_text().strip()
    engine = postgres(Settings.load(database_url=bed.stack.report.database_url), pool_size=1)
    try:
        with engine.begin() as db:
            return [keys.make(db, apps.ensure(db, f"app-{n}").id, pepper) for n in range(HONEST + 1)]
    finally:
        engine.dispose()


def run(name: str, arm: Arm, seed: int) -> Outcome:
    """Offer an arm's load, and wait for the end of all jobs."""
    with replace(FLEET, discounts=arm.discounts).running() as bed:
        *honest, eleventh = (bearer(key) for key in make_keys(bed))
        console.print(f"{name}: {arm.honest.seconds:.0f} s of load.", style="dim")

        def submit(number: int, key: Mapping[str, str], load: Load) -> Offered:
            *_, offered = offer(bed.url, key, load.arrivals(seed + number), load.seconds)
            return offered

        def eleven() -> int:
            if arm.loops:
                return insist(bed.url, eleventh, arm.eleventh, seed + HONEST)
            return len(submit(HONEST, eleventh, arm.eleventh).answers)

        with ThreadPoolExecutor(HONEST + 1) as pool:
            last = pool.submit(eleven)
            offers = list(pool.map(lambda n: submit(n, honest[n], arm.honest), range(HONEST)))
        began = offers[0].began
        needs = bed.sql(
            "SELECT need FROM decisions WHERE need IS NOT NULL AND at > to_timestamp(%s) ORDER BY at", began
        )
        wait_until(lambda: not bed.open_jobs(), LONGEST_END_S, "Some jobs have not ended.")
        together = Offered(began, sorted(chain.from_iterable(each.answers for each in offers)))
        [(discounted,)] = bed.sql("SELECT sum(discounted)::bigint FROM queue_samples")
        return Outcome(read(bed, arm.honest, together), last.result(), [need for (need,) in needs], discounted)


def figures_of(found: Mapping[str, Outcome]) -> dict[str, Any]:
    """What the last line says."""
    alone, loop = found["alone"], found["loop"]
    launch, undiscounted = (percentile(found[name].needs, 90) for name in ("launch", "launch, nothing discounted"))
    figures: dict[str, Any] = {
        "hosts_ratio": fmean(loop.needs) / fmean(alone.needs),
        "honest_refused_ratio": _ratio(loop.record.refused_share, alone.record.refused_share),
        "launch_hosts": launch,
        "launch_hosts_undiscounted": undiscounted,
        "launch_difference": abs(launch - undiscounted),
        "lost": sum(max(0, outcome.record.lost) for outcome in found.values()),
    }
    for name in OFF_ARM.keys() & found.keys():
        off = found[name]
        figures["hosts_ratio_off"] = fmean(off.needs) / fmean(alone.needs)
        figures["honest_refused_ratio_off"] = _ratio(off.record.refused_share, alone.record.refused_share)
    return figures


def _ratio(share: float, base: float) -> float:
    """One share over another; where that is none, how much of all there is."""
    return share / base if base else 1.0 + share


def show(found: Mapping[str, Outcome]) -> None:
    """A line for each arm."""
    title = f"Eleven apps, {CALM_HOSTS} to {BUSY_HOSTS} hosts of load, at most {MAX_HOSTS} hosts"
    table = Table("", header_style="bold", title=title)
    for heading in ("submits of the eleventh", "honest refused", "hosts needed", "at most", "discounted"):
        table.add_column(heading, justify="right")
    for name, each in found.items():
        mean, most = f"{fmean(each.needs):.1f}", str(max(each.needs))
        table.add_row(name, f"{each.tries:,}", f"{each.record.refused_share:.1%}", mean, most, f"{each.discounted:,}")
    console.print(table)


@click.command()
@click.option("--off", type=click.Choice(["discount"]), help="Run the loop also where each refused job is demand.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the arrivals.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write all rows.")
def main(off: str | None, seed: int, file: Path | None) -> None:
    """Let one app loop on refused submits beside ten honest ones, and let it launch.

    Starts a stack for each arm, one after the other: `headrace up --scale` with simulated engines, as
    autoscale_live.py does. The load of eleven apps rises to more than the three hosts that the pool may have, so that a
    part is refused. Ten apps give up then. The eleventh does so too, or it submits the same request every 50 ms until
    it is accepted. In the launch, it grows tenfold instead while the others stay calm, with and without the discount.

    The last line is name=value pairs: the mean of the hosts that the decisions found necessary (their column `need`,
    which `max_hosts` does not limit) with the loop, over that without it; the same ratio of the honest apps' refused
    share; the hosts needed in the launch (90th percentile), with the discount and without it, and their difference;
    accepted jobs that were lost. With --off discount, the first two also where each refused job is demand.

    The status is 1 when a ratio is above 1.1, when the launch's hosts differ by more than one, when a job was lost, or
    when the loop asks for no more hosts without the discount.

    \b
    bin/headrace python benchmarks/fake_demand.py
    bin/headrace python benchmarks/fake_demand.py --off discount --json fake.json
    """
    arms = ARMS | (OFF_ARM if off else {})
    found = {name: run(name, arm, seed) for name, arm in arms.items()}
    show(found)
    figures = figures_of(found)
    if file is not None:
        rows = {name: asdict(outcome) for name, outcome in found.items()}
        file.write_text(json.dumps({"figures": figures, "runs": rows}, indent=2) + "\n")
    missed = [f"{name} is above {GOAL}" for name in ("hosts_ratio", "honest_refused_ratio") if figures[name] > GOAL]
    if figures["launch_difference"] > 1:
        missed.append("the launch is not followed as it was without the discount")
    if figures["lost"]:
        missed.append(f"{figures['lost']} jobs are lost")
    if figures.get("hosts_ratio_off", GOAL + 1) <= GOAL:
        missed.append("the loop asks for no more hosts without the discount: this proves nothing")
    for line in missed:
        console.print(line, style="red")
    print(line_of(figures))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
