"""A replica is promoted under load: nothing accepted is lost, nothing is billed twice, and how soon it goes on.

Real processes, a real primary and its standby, a client that keeps a history, and counts in SQL after the run.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from bed.chaos.faults import Faults
from bed.chaos.orders import Client, Order, make_orders
from bed.chaos.readers import READERS, Readers, judge_streams
from bed.chaos.verdict import judge
from bed.chaos.world import World
from bed.testbed import console, line_of, rounds, wait_until

SLOTS, TOKENS_PER_S = 16, 16
SETTINGS = {
    "HEADRACE_POOLS__CHAT__MAX_RUNNING": str(SLOTS),
    "HEADRACE_SIMULATOR__DECODE_TOKENS_PER_S": str(TOKENS_PER_S),
    "HEADRACE_SIMULATOR__OUTPUT_TOKENS": "24",
}
#: Orders a second: two thirds of what the hosts can do.
RATE = 20
#: Before the first promotion and between two, in seconds: the hosts are warm, and what queued up is done.
GAP_S = 6.0
#: For how long jobs may be open after the last promotion, and how soon it has to go on, in seconds.
SETTLE_S, RECOVERY_S = 180.0, 60.0
ZERO = (
    *("lost", "double_billed", "double_effects", "misbilled", "wrong_answers", "complaints"),
    *("garbled", "streams_cut"),
)
#: What became of the streams.
STREAMS = (
    "streams",
    "streams_under_way",
    "streams_in_error",
    "streams_refused",
    "streams_resumed",
    "streams_restarted",
)
_NEXT_START = "SELECT extract(epoch FROM min(started_at)) FROM attempts WHERE started_at > to_timestamp(%s)"


@dataclass(frozen=True, slots=True)
class Arm:
    """One server whose replica is promoted.

    Attributes:
        kind: of `Faults`: it kills the primary, notes in `struck_at` when, and promotes the replica.
        figure: in the last line, the seconds from the death to the next accept and the next start.
        off: mechanisms whose absence shows: each is a counter-proof, and has its own world.
    """

    kind: str
    figure: str
    off: tuple[str, ...]


ARMS: Mapping[str, Arm] = {
    "postgres": Arm("postgres_promoted", "pg_recovery_s", ("sync", "fence")),
    "redis": Arm("redis_promoted", "redis_recovery_s", ("sweep",)),
}
#: What the world without a mechanism is for: the figure that is no longer 0.
SHOWS = {"sync": "lost", "fence": "double_billed", "sweep": "lost"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run has of what hurts.

    Attributes:
        seed: of the orders.
        streams: readers at once.
        busy: CPUs that are kept busy beside the system, once that has started.
    """

    promotions: int
    seed: int
    streams: int
    busy: int


def fail_over(arm: Arm, plan: Plan, off: str | None) -> dict[str, Any]:
    """One run: promotions under load. Its figures, and what each promotion took."""
    # Enough for a slow machine: what is not due when the last one is over is called off.
    seconds = plan.promotions * (GAP_S + 6) * 4
    with World(off, SETTINGS) as world:
        if off == "fence":
            with world.database() as db:
                db.execute("DROP INDEX uq_ledger_bill")
        world.until_hosts_agree()
        orders = make_orders(round(RATE * seconds), seconds, plan.seed, world.receiver.url)
        client = Client(world.url, world.api_key, orders, has_keys=True)
        faults = Faults(world, plan.seed, submit_poison=lambda: None, outage_s=1)
        readers = Readers(world, plan.streams)
        client.begin()
        # Not with a counter-proof: the stream of a lost job may have no end.
        has_readers = off is None
        if has_readers:
            readers.begin()
        try:
            with _busy(plan.busy):
                recoveries = [
                    _promote(world, client, faults, arm)
                    for _ in rounds(plan.promotions, lambda each: f"promotion {each}: {client.posted} accepted")
                ]
            if has_readers:
                readers.end()
            client.call_off()
            _settle(world, client, is_whole=off is None)
        finally:
            client.end()
        judged = judge(world, client.orders, faults.happened, [])
        judged |= judge_streams(world, readers, [each["struck_at"] for each in recoveries])
        restored = sum(map(_restored, world.log_lines()))
    figures = {
        "jobs": len(client.orders),
        "messages_restored": restored,
        **judged,
        "complaints": len(client.complaints) + len(readers.complaints),
        "statuses": dict(client.statuses),
    }
    return {"figures": figures, "promotions": recoveries, "complaints": client.complaints + readers.complaints}


@contextmanager
def _busy(cpus: int) -> Iterator[None]:
    """Keep this number of CPUs busy for the length of a `with` block."""
    # They end with this process too: then their input ends.
    spin = "import select, sys\nwhile not select.select([sys.stdin], [], [], 0)[0]: sum(range(100_000))"
    busy = [subprocess.Popen([sys.executable, "-c", spin], stdin=subprocess.PIPE) for _ in range(cpus)]
    try:
        yield
    finally:
        for each in busy:
            each.communicate()


def _promote(world: World, client: Client, faults: Faults, arm: Arm) -> dict[str, float]:
    """Let one happen, and see when accepts and starts go on."""
    time.sleep(GAP_S)
    faults.happen(arm.kind)
    return {
        "struck_at": faults.struck_at,
        "accepts_s": wait_until(lambda: _accepted_after(client.orders, faults.struck_at), RECOVERY_S, "No accepts."),
        "starts_s": wait_until(lambda: _started_after(world, faults.struck_at), RECOVERY_S, "No starts."),
    }


def _accepted_after(orders: Sequence[Order], at: float) -> float:
    """Seconds from then to the first 202 of what was posted later; 0 for none."""
    times = [order.accepted_at for order in orders if order.accepted_at is not None and order.posted_at > at]
    return min(times) - at if times else 0.0


def _started_after(world: World, at: float) -> float:
    [(first,)] = world.sql(_NEXT_START, at)
    return 0.0 if first is None else float(first) - at


def _restored(line: str) -> int:
    """How many messages a line of a log says that `publish_due` has pushed again."""
    _, _, record = line.partition(": ")
    return int(json.loads(record)["messages"]) if '"messages_restored"' in record else 0


def _settle(world: World, client: Client, *, is_whole: bool) -> None:
    """Return once every order has ended. Args: is_whole: False where some of them may be lost, and are never seen."""

    def is_over() -> bool:
        has_all = client.posted == len(client.orders) and (not is_whole or client.seen == client.posted)
        return has_all and world.open_jobs() == 0

    wait_until(is_over, SETTLE_S, None)


def show(runs: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """What must be nothing, and how long each promotion took, by run."""
    table = Table("", header_style="bold")
    for title, _ in runs:
        table.add_column(title, justify="right")
    for name in (*ZERO, "unbooked_usd", "jobs", "messages_restored", *STREAMS):
        table.add_row(name, *(str(run["figures"][name]) for _, run in runs))
    for name in ("accepts_s", "starts_s"):
        values = (", ".join(f"{each[name]:.1f}" for each in run["promotions"]) for _, run in runs)
        table.add_row(name, *values)
    console.print(table)
    for title, run in runs:
        if run["figures"]["lost"]:
            console.print(f"{title}: {run['figures']['lost']} accepted jobs are gone", style="bold red")


@click.command()
@click.option("--promotions", type=click.IntRange(min=1), default=3, show_default=True, help="In each run.")
@click.option("--server", "names", type=click.Choice(list(ARMS)), multiple=True, help="Only this one's. Repeatable.")
@click.option("--seed", type=int, default=None, help="Of the orders. Default: another each time.")
@click.option("--streams", type=click.IntRange(min=1), default=READERS, show_default=True, help="Readers at once.")
@click.option("--busy", type=click.IntRange(min=0), default=0, show_default=True, help="CPUs kept busy meanwhile.")
@click.option("--off", multiple=True, type=click.Choice(list(SHOWS)), help="A counter-proof. Repeatable.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write figures.")
def main(
    promotions: int,
    names: tuple[str, ...],
    seed: int | None,
    streams: int,
    busy: int,
    off: tuple[str, ...],
    file: Path | None,
) -> None:
    """Kill a primary under load, promote its replica, bring the dead one back as a replica, and again.

    Before each death the replica hears of its primary 0.5 s late, as by a long way: what is under way then has been
    asked for and not confirmed, or is confirmed and never arrives. `--off sync` has a standby of Postgres that is
    asynchronous, and shows what that loses; `--off fence` workers that write without their claim. Redis's replica is
    always asynchronous, and its Sentinel told of the death at once: what the new master lacks is made good from
    Postgres, and messages_restored says how much of it was messages; `--off sweep` runs no process that does so.
    Meanwhile readers follow one stream after the other. Half of those of responses break off and resume. `--streams`
    and `--busy` make it likelier that one of them meets a death where it hurts.

    The last line is name=value pairs: lost, accepted jobs that have not ended; double_billed, orders that were charged
    twice, both counted in SQL; garbled, streams that were said to be whole and are not the job's answer, and
    streams_under_way, those that were open while a primary died; for each server, the seconds from the primary's death
    to the next accept and the next start, the later of both, in the worst promotion; and the figure of each
    counter-proof. The status is 1 when a promise did not hold.

    \b
    bin/headrace python benchmarks/failover.py --off sync --off fence
    """
    seed = random.randrange(1_000_000) if seed is None else seed
    console.print(f"seed {seed}", style="dim")
    arms = {name: arm for name, arm in ARMS.items() if not names or name in names}
    plan = Plan(promotions, seed, streams, busy)
    runs = {name: fail_over(arm, plan, None) for name, arm in arms.items()}
    without = {
        (name, each): fail_over(arm, plan, each) for name, arm in arms.items() for each in off if each in arm.off
    }
    shown = [*runs.items(), *((f"{name}, no {each}", run) for (name, each), run in without.items())]
    show(shown)
    summed = (*ZERO[:2], "garbled", "streams_under_way")
    figures = {name: sum(run["figures"][name] for run in runs.values()) for name in summed}
    for name, run in runs.items():
        figures[arms[name].figure] = max(max(each["accepts_s"], each["starts_s"]) for each in run["promotions"])
    for (_, each), run in without.items():
        figures[f"{SHOWS[each]}_without_{each}"] = run["figures"][SHOWS[each]]
    if file is not None:
        arms_file = {name: asdict(arm) for name, arm in arms.items()}
        report = {"seed": seed, "arms": arms_file, "runs": dict(shown), "last_line": figures}
        file.write_text(json.dumps(report, indent=1) + "\n")
    print(line_of(figures))
    sys.exit(0 if all(run["figures"][name] == 0 for run in runs.values() for name in ZERO) else 1)


if __name__ == "__main__":
    main()
