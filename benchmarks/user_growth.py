"""What a user costs as 1,000 users become 10,000 and 100,000: a simulated day at each step, on the product's policy.

The claim: cost grows more slowly than users do. The fleet is simulated as in `headrace backtest`, with the product's
own policies of scaling and of the exact cache. Knows no running system.
"""

import json
import math
import random
import sys
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np
from rich.table import Table

from bed.testbed import console, line_of
from headrace.config import PoolSettings
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.prompts import Sampling
from headrace.policies import caching
from plugins.backtest.load import OfferedLoad, RateTrace, Sizes, offered_load, synthetic
from plugins.backtest.pool import World
from plugins.backtest.runs import PolicyCase, max_hosts, run

STEPS = (1_000, 10_000, 100_000)
#: The share of requests at each step that repeat a prompt of the same day. An assumption, not a measurement: more users
#: repeat each other's prompts more often.
DUPLICATES = (0.10, 0.20, 0.30)
#: Of their prompts, the share that asks for one answer only (temperature 0): no other is shared by default.
DETERMINED_SHARE = 0.8
#: How long an answer takes, in seconds: an identical request that comes meanwhile follows it.
ANSWER_S = 10.0
#: Any app without a setting of its own.
APP = App(new_id(), "all users", webhook_secret="")
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
        spilled_share, refused_share: of the requests that a cache did not answer.
        cached_share: of all requests, what another's answer served.
    """

    users: int
    policy: str
    requests: int
    usd_per_user: float
    hosts: float
    use: float
    spilled_share: float
    refused_share: float
    cached_share: float


def day_of(requests: float, seed: int) -> OfferedLoad:
    """A working day with this number of requests: quiet nights, a plateau, a peak from 9 to 11."""
    shape = synthetic("day", seed).per_minute
    factor = requests / sum(shape)
    return offered_load(RateTrace(array("d", (rate * factor for rate in shape))), Sizes(), seed)


def without_repeats(load: OfferedLoad, repeated: float, pool: PoolSettings) -> OfferedLoad:
    """What of a load the caches of a pool leave to its hosts. Args: repeated: the share that repeats a prompt."""
    chance, prompts = random.Random(SEED), list[int]()
    #: By prompt, until when its answer serves; None: it is not shared.
    served_until = dict[int, float | None]()
    runs = np.ones(len(load.times_s), dtype=bool)
    for place, at in enumerate(load.times_s):
        is_repeat = place and chance.random() < repeated
        prompt = prompts[chance.randrange(place)] if is_repeat else place
        prompts.append(prompt)
        if prompt not in served_until:
            sampling = Sampling(max_tokens=256, temperature=0.0 if chance.random() < DETERMINED_SHARE else None)
            can_share = caching.may_serve(APP, pool) and caching.is_shared(None, sampling, pool)
            served_until[prompt] = -math.inf if can_share else None
        until = served_until[prompt]
        if until is not None and at < until:
            runs[place] = False
        elif until is not None:
            served_until[prompt] = at + (ANSWER_S if pool.single_flight else 0.0) + caching.keep_s(APP, pool)
    minutes = (load.times_s // 60).astype(int)
    left = [np.bincount(minutes, weights, len(load.demand)) for weights in (load.work * runs, load.work)]
    demand = load.demand * np.divide(*left, out=np.ones(len(load.demand)), where=left[1] > 0)
    kept = (each[runs] for each in (load.times_s, load.work, load.tokens))
    return replace(load, **dict(zip(("times_s", "work", "tokens"), kept, strict=True)), demand=demand)


def simulate(users: int, policy: str, load: OfferedLoad, world: World, asked: int) -> Step:
    """One day, and its bill. Args: load: what the caches leave. asked: all requests."""
    world = replace(world, max_hosts=max_hosts(load, world))
    console.print(f"{users:,} users, {policy}, {len(load.times_s):,} of {asked:,} requests run", style="dim")
    figures = run(PolicyCase(policy), load, world, lambda _: None).figures
    usd = (figures.host_usd + figures.overflow_usd) * MONTH_DAYS
    shares = figures.spilled_share, figures.refused_share, 1 - len(load.times_s) / asked
    return Step(users, policy, asked, usd / users, figures.host_hours / 24, figures.use, *shares)


def exponent(steps: Sequence[Step]) -> float:
    """How cost grows with users: the slope of a line through their logarithms. Below 1: a user gets cheaper."""
    xs = [math.log(step.users) for step in steps]
    ys = [math.log(step.usd_per_user * step.users) for step in steps]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def show(arms: dict[str, list[Step]]) -> None:
    """A line for each arm and step."""
    table = Table("", header_style="bold", title="30 days of one user")
    for heading in ("users", "requests a day", "USD per user", "hosts", "use", "paid API", "refused", "cached"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, steps in arms.items():
        for step in steps:
            shares = (f"{each:.1%}" for each in (step.use, step.spilled_share, step.refused_share, step.cached_share))
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
@click.option(
    "--cache-s", type=click.FloatRange(0), default=3600.0, show_default=True, help="For which an answer serves."
)
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write all rows.")
def main(requests: float, usd_per_hour: float, overflow_usd: float, cache_s: float, file: Path | None) -> None:
    """Simulate a day of 1,000, 10,000 and 100,000 users, and fit how the cost grows.

    Assumptions: each user makes 10 requests a day, whose sizes are exponential around 1,155 prompt and 211 output
    tokens, the means of Azure's trace of conversations. All users live in one time zone: quiet nights, a plateau
    from 7 to 21, a peak from 9 to 11. A host costs 4.10 USD an hour, runs 20 requests at once, comes 300 s after
    its order, and one always stays. A request at the paid API costs 0.015 USD; it takes what would wait longer than
    30 s, at most 2.4 a second at every step, as the rate limit of one account.

    Of the requests, 10 %, 20 % and 30 % repeat a prompt of the same day, any earlier one, and 80 % of the prompts ask
    for a temperature of 0. `predictive` has the product's exact cache and its single flight on, by the product's own
    rules: an answer serves identical requests while it is made and for an hour. The cache by meaning is not simulated.
    `no caches` are the same days without both, and `fixed` a fleet that always has the hosts of the peak, with them.

    The last line is name=value pairs: usd_per_user_1k, _10k and _100k, a month of one user under `predictive`;
    cached_share_1k, _10k and _100k, requests that another's answer served; exponent, by which the whole cost grows
    with the users, fitted to the three steps; exponent_last, from 10,000 to 100,000 users alone, since at 1,000 the
    one host that always stays is nearly idle and is most of the bill; exponent_fixed and exponent_no_caches, fitted
    for the other arms; saved_share_100k, of the bill without caches at the last step. The status is 1 when an exponent
    of `predictive` is 1 or more.

    \b
    bin/headrace python benchmarks/user_growth.py
    """
    world = World(usd_per_hour=usd_per_hour, overflow_usd=overflow_usd, min_hosts=1)
    pool = PoolSettings(cache_s=cache_s, single_flight=True)
    arms: dict[str, list[Step]] = {"predictive": [], "fixed": [], "no caches": []}
    for users, repeated in zip(STEPS, DUPLICATES, strict=True):
        whole = day_of(users * requests, SEED)
        left, asked = without_repeats(whole, repeated, pool), len(whole.times_s)
        arms["predictive"].append(simulate(users, "predictive", left, world, asked))
        arms["fixed"].append(simulate(users, "fixed", left, world, asked))
        arms["no caches"].append(simulate(users, "predictive", whole, world, asked))
    show(arms)
    figures = {f"usd_per_user_{step.users // 1000}k": step.usd_per_user for step in arms["predictive"]}
    figures |= {f"cached_share_{step.users // 1000}k": step.cached_share for step in arms["predictive"]}
    figures["saved_share_100k"] = 1 - arms["predictive"][-1].usd_per_user / arms["no caches"][-1].usd_per_user
    figures["exponent_last"] = exponent(arms["predictive"][1:])
    names = {"exponent": "predictive", "exponent_fixed": "fixed", "exponent_no_caches": "no caches"}
    figures |= {name: exponent(arms[arm]) for name, arm in names.items()}
    if file is not None:
        rows = {name: [asdict(step) for step in steps] for name, steps in arms.items()}
        file.write_text(json.dumps({"figures": figures, "steps": rows}, indent=2) + "\n")
    print(line_of(figures))
    sys.exit(0 if max(figures["exponent"], figures["exponent_last"]) < 1 else 1)


if __name__ == "__main__":
    main()
