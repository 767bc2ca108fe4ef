"""One run: a stack, a load, and its record. Says meanwhile how it stands."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import click

from bed.fleet.arrivals import Load, offer
from bed.fleet.record import Record, read
from bed.fleet.stack import Fleet, await_hosts
from bed.testbed import Testbed, bearer, console, wait_until

PROGRESS_EVERY_S = 10.0
#: After the load's end, until no job is open, and then until only the first hosts are left.
LONGEST_END_S, LONGEST_DOWN_S = 60.0, 60.0


@dataclass(frozen=True, slots=True)
class Order:
    """What a run is to be. Attributes: starts_at: of the first job, since 1970; None for at once."""

    name: str
    fleet: Fleet
    load: Load
    seed: int
    starts_at: float | None = None


def run(order: Order, look: Callable[[Testbed, float], None] = lambda _, __: None) -> Record:
    """Offer the load, and wait for the end of all jobs and, of `predictive`, of all hosts that are not needed any more.

    Args:
        look: gets the stack at its end, and when the first job was submitted.
    """
    with order.fleet.running() as bed:
        if order.starts_at is not None:
            if (left_s := order.starts_at - time.time()) < 0:
                raise click.ClickException(f"The stack was up {-left_s:.0f} s too late for its calendar.")
            time.sleep(left_s)
        arrivals, told_s = order.load.arrivals(order.seed), 0.0
        for offered in offer(bed.url, bearer(bed.api_key), arrivals, order.load.seconds):
            if (at_s := time.time() - offered.began) >= told_s:
                told_s += PROGRESS_EVERY_S
                console.print(f"{order.name}, {at_s:.0f} of {order.load.seconds:.0f} s: {_standing(bed)}", style="dim")
        wait_until(lambda: not bed.open_jobs(), LONGEST_END_S, None)
        if order.fleet.policy == "predictive":
            await_hosts(bed, order.fleet.first_hosts, LONGEST_DOWN_S)
        look(bed, offered.began)
        return read(bed, order.load, offered)


def _standing(bed: Testbed) -> str:
    [hosts] = bed.sql(
        "SELECT count(*) FILTER (WHERE ready_at IS NOT NULL AND drain_at IS NULL), "
        "count(*) FILTER (WHERE ready_at IS NULL AND drain_at IS NULL), count(drain_at) "
        "FROM hosts WHERE ended_at IS NULL"
    )
    jobs = dict(bed.sql("SELECT state, count(*) FROM jobs GROUP BY state"))
    ready, requested, draining = hosts
    return (
        f"{ready} hosts ready, {requested} on the way, {draining} draining; "
        f"{jobs.get('queued', 0)} jobs wait, {jobs.get('succeeded', 0)} are done"
    )
