"""Nothing lost, nothing twice: thousands of jobs while everything that can break breaks, again and again.

Real processes on two hosts, real servers behind proxies, a client that keeps a history, and a verdict in SQL.
"""

import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from chaos.faults import Faults
from chaos.orders import Client, make_orders
from chaos.verdict import judge
from chaos.world import LANES, POISON, World
from testbed import console, line_of

#: The own hosts: so many answers at once on each, at so many tokens a second.
SLOTS, TOKENS_PER_S = 16, 16
#: Without an end of any job for so long, what is open is taken for lost.
STUCK_S = 90.0
#: What must hold, whatever broke.
ZERO = ("lost", "double_effects", "double_billed", "misbilled", "wrong_answers", "unknown_jobs", "webhooks_missing")
ZERO += ("money_stuck", "poison_at_large", "overshoot_new", "complaints", "hung_posts")
ZERO_USD = ("unbooked_usd", "overbooked_usd", "budget_off_usd")
SETTINGS = {
    "HEADRACE_POOLS__CHAT__MAX_RUNNING": str(SLOTS),
    "HEADRACE_SIMULATOR__DECODE_TOKENS_PER_S": str(TOKENS_PER_S),
    "HEADRACE_SIMULATOR__OUTPUT_TOKENS": "24",
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
                # It is down, or hung: nobody is let in meanwhile.
                continue


def break_things(world: World, client: Client, faults: Faults, number: int, pause_s: float) -> None:
    """Let so many faults happen, one after the other, and tell of each."""
    for no, kind in enumerate(faults.plan(number), start=1):
        faults.pause(pause_s)
        console.print(f"{no}/{number} {kind}: {client.posted} accepted, {client.seen} ended", style="dim")
        faults.happen(kind)


def settle(world: World, client: Client) -> None:
    """Return once every order has ended, or nothing has for a long time."""
    last, since = (-1, -1), time.monotonic()
    while time.monotonic() - since < STUCK_S:
        now = client.posted, world.open_jobs()
        if now == (len(client.orders), 0) and client.seen == len(client.orders) and _is_delivered(world):
            return
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.5)
    console.print(f"nothing has ended for {STUCK_S:.0f} s: {last[1]} jobs are open", style="bold red")


def _is_delivered(world: World) -> bool:
    return not world.sql("SELECT FROM deliveries WHERE state = 'pending' LIMIT 1")


def soak(jobs: int, number: int, pause_s: float, seed: int, off: str | None, log: Path | None) -> dict[str, Any]:
    """One run; its figures, history and faults."""
    with World(off, SETTINGS) as world:
        if off == "fence":
            with world.database() as db:
                db.execute("DROP INDEX uq_ledger_bill")
        # So long as things break, there is work.
        seconds = max(number * (pause_s + 3.0), jobs / (0.7 * 2 * SLOTS * TOKENS_PER_S / 16))
        orders = make_orders(jobs, seconds, seed, world.receiver.url)
        client = Client(world.url, world.api_key, orders, has_keys=off != "idempotency")
        faults = Faults(world, seed, lambda: client.add(f"A cup of {POISON}, please. {random.random()}"))
        depths = Depths(world)
        client.begin()
        began = time.monotonic()
        try:
            break_things(world, client, faults, number, pause_s)
            settle(world, client)
        finally:
            client.end()
            depths.end()
            if log is not None:
                log.write_text("\n".join(world.log_lines()))
        figures = {
            "jobs": len(client.orders),
            "faults": len(faults.happened),
            "fewest_of_a_kind": min(faults.counts.get(kind, 0) for kind in faults.kinds),
            **judge(world, client.orders, faults.happened, depths.seen),
            "complaints": len(client.complaints),
            "hung_posts": client.statuses[-1],
            "retries": client.statuses.total() - client.posted,
            "five_xx": client.statuses[503] + client.statuses[500],
            "seconds": time.monotonic() - began,
            "seed": seed,
        }
        recoveries = figures.pop("recoveries")
        return {
            "figures": figures,
            "kinds": dict(faults.counts),
            "statuses": dict(client.statuses),
            "complaints": client.complaints,
            "faults": [
                {**asdict(fault), "recovery_s": recovery_s}
                for fault, recovery_s in zip(faults.happened, recoveries, strict=True)
            ],
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
@click.option("--faults", "number", type=click.IntRange(min=0), default=140, show_default=True)
@click.option("--pause", "pause_s", type=click.FloatRange(min=0), default=1.5, show_default=True, help="Between them.")
@click.option("--seed", type=int, default=None, help="Of orders and faults. Default: another each time.")
@click.option("--off", multiple=True, type=click.Choice(["fence", "sweep", "idempotency"]), help="A counter-proof.")
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write all of it."
)
@click.option(
    "--log", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write all processes' logs."
)
def main(
    jobs: int, number: int, pause_s: float, seed: int | None, off: tuple[str, ...], file: Path | None, log: Path | None
) -> None:
    """Post thousands of jobs while processes, servers, the network and the paid API fail, and count what went wrong.

    \b
    bin/headrace python benchmarks/soak.py
    bin/headrace python benchmarks/soak.py --jobs 500 --faults 30 --seed 7
    bin/headrace python benchmarks/soak.py --jobs 1000 --faults 60 --off fence --off sweep --off idempotency
    """
    seed = random.randrange(1_000_000) if seed is None else seed
    console.print(f"seed {seed}", style="dim")
    runs = [("on", soak(jobs, number, pause_s, seed, None, log))]
    for mechanism in off:
        console.print(f"without {mechanism}", style="bold")
        runs.append((f"without {mechanism}", soak(jobs, number, pause_s, seed, mechanism, None)))
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
