"""What a user costs as 1,000 users become 10,000 and 100,000: a simulated day at each step, on the product's policy.

The claim: cost grows more slowly than users do. The fleet is simulated as in `headrace backtest`, with the product's
own scaling policy. Knows no running system.
"""

import json
import math
import sys
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
from rich.table import Table

from bed.testbed import console, line_of
from headrace.cli.backtest.load import OfferedLoad, Sizes, offered_load
from headrace.cli.backtest.runs import PolicyCase, max_hosts, run
from headrace.cli.backtest.synthetic import synthetic
from headrace.cli.backtest.trace import RateTrace
from headrace.cli.backtest.world import World

STEPS = (1_000, 10_000, 100_000)
#: The share of requests at each step that repeat a prompt of the same day. An assumption, not a measurement: more users
#: repeat each other's prompts more often.
DUPLICATES = (0.10, 0.20, 0.30)
MONTH_DAYS = 30
SEED = 1


@dataclass(frozen=True, slots=True)
class Step:
    """One day at one number of users.

    Attributes:
        requests: all that arrived at the pool.
        usd_per_user: the bill of hosts and paid API for 30 such days, over the users.
        hosts: mean over the day.
        use: of the hosts' slots.
        spilled_share, refused_share: of the requests.
    """

    users: int
    policy: str
    requests: int
    usd_per_user: float
    hosts: float
    use: float
    spilled_share: float
    refused_share: float


def day_of(requests: float, seed: int) -> OfferedLoad:
    """A working day with so many requests: quiet nights, a plateau, a peak from 9 to 11."""
    shape = synthetic("day", seed).per_minute
    factor = requests / sum(shape)
    return offered_load(RateTrace(array("d", (rate * factor for rate in shape))), Sizes(), seed)


def simulate(users: int, policy: str, requests: float, world: World) -> Step:
    """One day, and its bill."""
    load = day_of(requests, SEED)
    world = replace(world, max_hosts=max_hosts(load, world))
    console.print(f"{users:,} users, {policy}, {requests:,.0f} requests", style="dim")
    figures = run(PolicyCase(policy), load, world, lambda _: None).figures
    usd = (figures.host_usd + figures.overflow_usd) * MONTH_DAYS
    shares = figures.spilled_share, figures.refused_share
    return Step(users, policy, figures.requests, usd / users, figures.host_hours / 24, figures.use, *shares)


def exponent(steps: Sequence[Step]) -> float:
    """How cost grows with users: the slope of a line through their logarithms. Below 1: a user gets cheaper."""
    xs = [math.log(step.users) for step in steps]
    ys = [math.log(step.usd_per_user * step.users) for step in steps]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def show(arms: dict[str, list[Step]]) -> None:
    """A line for each arm and step."""
    table = Table("", header_style="bold", title="30 days of one user")
    for heading in ("users", "requests a day", "USD per user", "hosts", "use", "paid API", "refused"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, steps in arms.items():
        for step in steps:
            shares = (f"{each:.1%}" for each in (step.use, step.spilled_share, step.refused_share))
            cells = f"{step.users:,}", f"{step.requests:,}", f"{step.usd_per_user:.3f}", f"{step.hosts:.1f}"
            table.add_row(name, *cells, *shares)
        table.add_section()
    console.print(table)


@click.command()
@click.option("--requests", type=click.FloatRange(1), default=10.0, show_default=True, help="Of a user in a day.")
@click.option("--usd-per-hour", type=click.FloatRange(0), default=4.10, show_default=True, help="Of a host.")
@click.option(
    "--overflow-usd", type=click.FloatRange(0), default=0.015, show_default=True, help="A request at the paid API."
)
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write all rows.")
def main(requests: float, usd_per_hour: float, overflow_usd: float, file: Path | None) -> None:
    """Simulate a day of 1,000, 10,000 and 100,000 users, and fit how the cost grows.

    Assumptions: each user makes 10 requests a day, whose sizes are exponential around 1,155 prompt and 211 output
    tokens, the means of Azure's trace of conversations. All users live in one time zone: quiet nights, a plateau
    from 7 to 21, a peak from 9 to 11. A host costs 4.10 USD an hour, runs 20 requests at once, comes 300 s after
    its order, and one always stays. A request at the paid API costs 0.015 USD; it takes what would wait longer than
    30 s, at most 2.4 a second at every step, as the rate limit of one account.

    Of the requests, 10 %, 20 % and 30 % repeat a prompt of the same day. The product has no cache of answers, so
    they cost as much as any other: the arm `predictive`. `if cached` is a what-if: the same days without these
    requests, as if a cache answered them for nothing. `fixed` is a fleet that always has the hosts of the peak.

    The last line is name=value pairs: usd_per_user_1k, _10k and _100k, a month of one user under `predictive`;
    exponent, by which the whole cost grows with the users, fitted to the three steps; exponent_last, from 10,000 to
    100,000 users alone, since at 1,000 the one host that always stays is nearly idle and is most of the bill;
    exponent_fixed and exponent_if_cached, fitted for the other arms. The status is 1 when an exponent of
    `predictive` is 1 or more.

    \b
    bin/headrace python benchmarks/user_growth.py
    """
    world = World(usd_per_hour=usd_per_hour, overflow_usd=overflow_usd, min_hosts=1)
    loads = [(users, users * requests) for users in STEPS]
    arms = {
        policy: [simulate(users, policy, count, world) for users, count in loads] for policy in ("predictive", "fixed")
    }
    arms["if cached"] = [
        simulate(users, "predictive", count * (1 - share), world)
        for (users, count), share in zip(loads, DUPLICATES, strict=True)
    ]
    show(arms)
    figures = {f"usd_per_user_{step.users // 1000}k": step.usd_per_user for step in arms["predictive"]}
    figures["exponent_last"] = exponent(arms["predictive"][1:])
    names = {"exponent": "predictive", "exponent_fixed": "fixed", "exponent_if_cached": "if cached"}
    figures |= {name: exponent(arms[arm]) for name, arm in names.items()}
    if file is not None:
        rows = {name: [asdict(step) for step in steps] for name, steps in arms.items()}
        file.write_text(json.dumps({"figures": figures, "steps": rows}, indent=2) + "\n")
    print(line_of(figures))
    sys.exit(0 if max(figures["exponent"], figures["exponent_last"]) < 1 else 1)


if __name__ == "__main__":
    main()
