"""Nothing lost, nothing twice: thousands of jobs while everything that can break breaks, again and again.

Real processes on two hosts that the autoscaler orders, real servers behind proxies, a client that keeps a history, and
a verdict in SQL.
"""

import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from bed.chaos.faults import Faults
from bed.chaos.flights import make_identical
from bed.chaos.lines import BatchClient, judge_lines, make_batches
from bed.chaos.orders import Client, make_orders
from bed.chaos.verdict import judge
from bed.chaos.world import LANES, POISON, World
from bed.testbed import console, line_of

#: The own hosts: answers at once on each, and their tokens a second.
SLOTS, TOKENS_PER_S = 16, 16
#: An answer has 16 tokens in the mean.
CAPACITY_PER_S = 2 * SLOTS * TOKENS_PER_S / 16
#: The share of the jobs that are lines of batches.
LINES_SHARE = 0.2
#: Without an end of any job for so long, what is open is taken for lost.
STUCK_S = 90.0
#: What must hold, whatever broke.
ZERO = ("lost", "double_effects", "double_billed", "misbilled", "wrong_answers", "unknown_jobs", "webhooks_missing")
ZERO += ("money_stuck", "poison_at_large", "overshoot_new", "complaints", "hung_posts")
ZERO += ("hosts_overordered", "hosts_adrift", "flights_paid_twice", "followers_misbooked", "other_answers")
ZERO += ("lines_lost", "lines_twice", "lines_wrong", "batches_misbilled")
ZERO_USD = ("unbooked_usd", "overbooked_usd", "budget_off_usd")
SETTINGS = {
    "HEADRACE_POOLS__CHAT__MAX_RUNNING": str(SLOTS),
    # A quarter of the orders takes part: they have a temperature of 0.
    "HEADRACE_POOLS__CHAT__SINGLE_FLIGHT": "true",
    "HEADRACE_POOLS__CHAT__CACHE_S": "3600",
    "HEADRACE_SIMULATOR__DECODE_TOKENS_PER_S": str(TOKENS_PER_S),
    "HEADRACE_SIMULATOR__OUTPUT_TOKENS": "24",
    # One app sends the poison and all orders: confined, its jobs would run one at a time for an hour.
    "HEADRACE_CONFINE_S": "0",
}


class Depths:
    """Watches how many jobs wait in all queues, as Redis has it, in a thread of its own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.seen: list[int] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        keys = [f"{{headrace}}:line:chat.{lane}" for lane in LANES]
        while not self._stopping.wait(0.25):
            try:
                self.seen.append(max(int(self._world.onlooker.zcard(key)) for key in keys))
            except Exception:
                # It is down, or hung: no operator is let in meanwhile.
                continue


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to be. Attributes: kinds: of faults; empty for all. outage_s: the longest of one."""

    jobs: int
    faults: int
    pause_s: float
    outage_s: float
    kinds: tuple[str, ...]
    seed: int

    @property
    def seconds(self) -> float:
        """For how long orders come: about as long as things break, or as it takes the hosts to carry them out."""
        # Half of the kinds last, in the mean, for half of the longest; a few are longer, and most are over at once. One
        # in six first waits for the hosts.
        return max(self.faults * (self.pause_s + 0.35 * self.outage_s + 0.8), self.jobs / CAPACITY_PER_S / 0.7)


def break_things(client: Client, faults: Faults, plan: Plan) -> None:
    """Let faults happen, one after the other, and tell of each. Raises: click.BadParameter."""
    if unknown := set(plan.kinds) - set(faults.kinds):
        raise click.BadParameter(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(faults.kinds)}.")
    for no, kind in enumerate(faults.plan(plan.faults, plan.kinds or faults.kinds), start=1):
        faults.pause(plan.pause_s)
        console.print(f"{no}/{plan.faults} {kind}: {client.posted} accepted, {client.seen} ended", style="dim")
        faults.happen(kind)


def settle(world: World, client: Client, batches: BatchClient) -> None:
    """Return once every order has ended and the hosts are what they are to be, or nothing has ended for a long time."""
    last, since = (-1, -1, -1), time.monotonic()
    while time.monotonic() - since < STUCK_S:
        now = client.posted, world.open_jobs(), batches.seen
        is_done = now == (len(client.orders), 0, len(batches.orders)) and client.seen == len(client.orders)
        if is_done and _is_delivered(world) and world.hosts_agree():
            return
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.5)
    astray = "" if world.hosts_agree() else ", and the hosts are not what their leases say"
    console.print(f"nothing has ended for {STUCK_S:.0f} s: {last[1]} jobs are open{astray}", style="bold red")


def _is_delivered(world: World) -> bool:
    return not world.sql("SELECT FROM deliveries WHERE state = 'pending' LIMIT 1")


def soak(plan: Plan, off: str | None, log: Path | None) -> dict[str, Any]:
    """One run; its figures, history and faults."""
    lines = round(LINES_SHARE * plan.jobs)
    with World(off, SETTINGS, has_batches=True) as world:
        if off == "fence":
            with world.database() as db:
                db.execute("DROP INDEX uq_ledger_bill")
        orders = make_orders(plan.jobs - lines, plan.seconds, plan.seed, world.receiver.url)
        make_identical(orders, plan.seconds, plan.seed, world.receiver.url)
        client = Client(world.url, world.api_key, orders, has_keys=off != "idempotency")
        batches = BatchClient(world.url, world.api_key, make_batches(lines, plan.seconds, plan.seed))
        poison = partial(client.add, f"A cup of {POISON}, please.")
        faults = Faults(world, plan.seed, poison, plan.outage_s)
        depths = Depths(world)
        client.begin()
        batches.begin()
        began = time.monotonic()
        try:
            break_things(client, faults, plan)
            settle(world, client, batches)
        finally:
            client.end()
            batches.end()
            depths.end()
            if log is not None:
                log.write_text("\n".join(world.log_lines()))
        judged = judge(world, client.orders, faults.happened, depths.seen) | judge_lines(world, batches.orders)
        client.complaints += batches.complaints
        return _report(plan, client, faults, judged, time.monotonic() - began)


def _report(plan: Plan, client: Client, faults: Faults, judged: dict[str, Any], seconds: float) -> dict[str, Any]:
    recoveries = judged.pop("recoveries")
    happened = [
        {**asdict(fault), "recovery_s": recovery_s}
        for fault, recovery_s in zip(faults.happened, recoveries, strict=True)
    ]
    figures = {
        "jobs": len(client.orders) + judged["lines"],
        "faults": len(happened),
        "fewest_of_a_kind": min(faults.counts[kind] for kind in plan.kinds or faults.kinds),
        **judged,
        "complaints": len(client.complaints),
        "hung_posts": client.statuses[-1],
        "retries": client.statuses.total() - client.posted,
        "five_xx": sum(count for status, count in client.statuses.items() if status >= 500),
        "seconds": seconds,
        "seed": plan.seed,
    }
    return {
        "figures": figures,
        "kinds": dict(faults.counts),
        "statuses": dict(client.statuses),
        "complaints": client.complaints,
        "faults": happened,
        "history": [asdict(order) for order in client.orders],
    }


def is_met(figures: dict[str, Any]) -> bool:
    """Whether every promise held."""
    zero = all(figures[name] == 0 for name in ZERO) and all(float(figures[name]) == 0 for name in ZERO_USD)
    return zero and figures["succeeded_share"] == 1


def show(runs: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """What must be nothing, by run; and how often what happened."""
    table = Table("what must be 0", header_style="bold")
    for title, _ in runs:
        table.add_column(title, justify="right")
    for name in (*ZERO, *ZERO_USD):
        table.add_row(name, *(str(run["figures"][name]) for _, run in runs))
    console.print(table)
    kinds: Counter[str] = Counter(runs[0][1]["kinds"])
    console.print("faults: " + ", ".join(f"{kind} {count}" for kind, count in kinds.most_common()), style="dim")
    for complaint in runs[0][1]["complaints"][:10]:
        console.print(complaint, style="red")


@click.command()
@click.option("--jobs", type=click.IntRange(min=10), default=10_000, show_default=True)
@click.option("--faults", "number", type=click.IntRange(min=0), default=145, show_default=True)
@click.option(
    "--pause", "pause_s", type=click.FloatRange(min=0), default=1.5, show_default=True, help="Between faults."
)
@click.option("--outage", "outage_s", type=click.FloatRange(min=1), default=7, show_default=True, help="Longest, in s.")
@click.option("--kind", "kinds", multiple=True, help="Of faults, instead of all. Repeatable.")
@click.option("--seed", type=int, default=None, help="Of orders and faults. Default: another each time.")
@click.option(
    "--off", multiple=True, type=click.Choice(["fence", "sweep", "idempotency", "followers"]), help="A counter-proof."
)
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write all of it."
)
@click.option(
    "--log", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the processes' logs."
)
def main(
    jobs: int,
    number: int,
    pause_s: float,
    outage_s: float,
    kinds: tuple[str, ...],
    seed: int | None,
    off: tuple[str, ...],
    file: Path | None,
    log: Path | None,
) -> None:
    """Post thousands of jobs while processes, servers, the network and the paid API fail, and count what went wrong.

    A fifth of the jobs are lines of ten batches, whose files are uploaded, and whose results are read, through the API.
    One batch in four is cancelled once a line has ended. lines_lost are in no file of results, lines_twice in more than
    one place or with more than one job, answer or bill, lines_wrong in the wrong file or with another answer.

    \b
    bin/headrace python benchmarks/soak.py
    bin/headrace python benchmarks/soak.py --jobs 500 --faults 30 --seed 7
    bin/headrace python benchmarks/soak.py --jobs 1000 --faults 60 --off fence --off sweep --off idempotency
    """
    seed = random.randrange(1_000_000) if seed is None else seed
    console.print(f"seed {seed}", style="dim")
    plan = Plan(jobs, number, pause_s, outage_s, kinds, seed)
    runs = [("on", soak(plan, None, log))]
    for mechanism in off:
        console.print(f"without {mechanism}", style="bold")
        runs.append((f"without {mechanism}", soak(plan, mechanism, None)))
    show(runs)
    figures = dict(runs[0][1]["figures"])
    for mechanism, (_, run) in zip(off, runs[1:], strict=True):
        figures |= {f"{name}_without_{mechanism}": run["figures"][name] for name in ZERO[:3]}
    if file is not None:
        file.write_text(json.dumps({**dict(runs), "last_line": figures}, indent=1) + "\n")
    print(line_of(figures))
    sys.exit(0 if is_met(runs[0][1]["figures"]) else 1)


if __name__ == "__main__":
    main()
