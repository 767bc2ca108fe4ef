"""The learned bound of cached entries on a stream with known answers, beside one static threshold for all.

The claim: of the answers served, at most `max_error` are wrong, whatever the entries are like. Needs no server and no
model: the policy alone decides.
"""

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
from rich.table import Table

from bed.testbed import console, line_of
from headrace.policies.reuse.bound import Try, trust

BOUNDS = (0.02, 0.01, 0.005)
STATIC = (0.8, 0.9, 0.95)
#: Of the stream: the share of entries that are wrong now and then however alike the texts are.
TRAPS = 0.08
#: Requests are spread over entries as over words: the n-th entry gets 1 / n of the first one's.
ZIPF = 0.9


@dataclass(slots=True)
class Entry:
    """One cached answer and what is true of it, which the policy does not know.

    Attributes:
        boundary: a request as alike as this is answered rightly in half of the cases.
        blur: how sharp that boundary is: a normal deviation of the similarity.
        lapse: the share of wrong answers that no similarity excludes.
    """

    boundary: float
    blur: float
    lapse: float
    tries: list[Try] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one rule served of the stream."""

    rule: str
    served: int
    wrong: int
    requests: int

    @property
    def error(self) -> float:
        """The share of wrong answers among those served."""
        return self.wrong / self.served if self.served else 0.0

    @property
    def hits(self) -> float:
        """The share of requests that were served."""
        return self.served / self.requests


def entries(count: int, dice: random.Random) -> list[Entry]:
    """Entries of which many answer nearly alike texts rightly, some only identical ones, and some nothing for sure.

    Neither the boundaries' distribution nor the normal blur is the model of the policy.
    """
    made = []
    for _ in range(count):
        is_trap = dice.random() < TRAPS
        lapse = dice.choice([0.05, 0.15, 0.5]) if is_trap else dice.choice([0.0, 0.0, 0.0, 0.002])
        made.append(Entry(0.45 + 0.55 * dice.betavariate(2.2, 2.0), dice.uniform(0.005, 0.05), lapse))
    return made


def stream(of: list[Entry], requests: int, dice: random.Random) -> Iterator[tuple[Entry, float, bool]]:
    """Requests: the nearest entry, the similarity, and whether its answer would be right."""
    shares = [1 / (place + 1) ** ZIPF for place in range(len(of))]
    for entry in dice.choices(of, shares, k=requests):
        similarity = 0.5 + 0.5 * dice.betavariate(3.0, 1.6)
        is_right = similarity + dice.gauss(0, entry.blur) > entry.boundary and dice.random() >= entry.lapse
        yield entry, similarity, is_right


def learned(max_error: float, count: int, requests: int, seed: int) -> Outcome:
    """Each entry serves where its own tries allow it."""
    dice, coin = random.Random(seed), random.Random(seed + 1)
    served = wrong = 0
    for entry, similarity, is_right in stream(entries(count, dice), requests, dice):
        found = trust(entry.tries, similarity, max_error)
        if coin.random() < found.run_share:
            entry.tries.append(Try(similarity, is_right))
        else:
            served, wrong = served + 1, wrong + (not is_right)
    return Outcome(f"learned, max_error {max_error:g}", served, wrong, requests)


def static(threshold: float, count: int, requests: int, seed: int) -> Outcome:
    """All entries serve above one threshold."""
    dice = random.Random(seed)
    hits = [right for _, alike, right in stream(entries(count, dice), requests, dice) if alike >= threshold]
    return Outcome(f"static {threshold:g}", len(hits), hits.count(False), requests)


@click.command()
@click.option("--entries", "count", type=click.IntRange(min=1), default=300, show_default=True, help="Cached answers.")
@click.option("--requests", type=click.IntRange(min=1), default=20_000, show_default=True, help="Length of the stream.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the entries and the stream.")
@click.option("--off", type=click.Choice(["bound"]), help="Serve above the static threshold 0.9 instead.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write all rows.")
def main(count: int, requests: int, seed: int, off: str | None, file: Path | None) -> None:
    """Serve a made stream from cached entries by their learned bounds, and by static thresholds beside them.

    The entries are made with a seed. Each answers rightly above a boundary of its own, more or less sharply; 8 % lapse:
    5, 15 or 50 % of their answers are wrong however alike the texts are. Requests are spread over entries by Zipf's
    law. A request that is not served runs, and its answer is a try of the entry; 2 % of the others run too.

    The last line is name=value pairs: error_020, error_010 and error_005, the share of wrong answers among those served
    at max_error 0.02, 0.01 and 0.005; hits_010, the share of requests served at 0.01; static_error and static_hits, of
    the static threshold 0.9. The status is 1 when an error is above its max_error. With --off bound the errors are the
    static threshold's.

    \b
    bin/headrace python benchmarks/error_bound.py
    bin/headrace python benchmarks/error_bound.py --off bound
    """
    statics = [static(threshold, count, requests, seed) for threshold in STATIC]
    beside = statics[STATIC.index(0.9)]
    bounded = [beside if off else learned(bound, count, requests, seed) for bound in BOUNDS]
    table = Table("rule", "served", "hits", "wrong", "error among served")
    for each in (*bounded, *statics):
        table.add_row(each.rule, str(each.served), f"{each.hits:.3f}", str(each.wrong), f"{each.error:.4f}")
    console.print(table)
    names = [f"error_{round(bound * 1000):03}" for bound in BOUNDS]
    figures = {name: each.error for name, each in zip(names, bounded, strict=True)}
    figures |= {"hits_010": bounded[1].hits, "static_error": beside.error, "static_hits": beside.hits}
    if file is not None:
        rows = [asdict(each) for each in (*bounded, *statics)]
        file.write_text(json.dumps({"figures": figures, "rows": rows}, indent=2) + "\n")
    print(line_of(figures))
    sys.exit(any(each.error > bound for each, bound in zip(bounded, BOUNDS, strict=True)))


if __name__ == "__main__":
    main()
