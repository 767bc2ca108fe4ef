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
from headrace.policies.reuse.bound import Record, Try, learned, trust

BOUNDS = (0.02, 0.01, 0.005)
STATIC = (0.8, 0.9, 0.95)
#: Of the stream: the share of entries that are wrong now and then however alike the texts are.
TRAPS = 0.08
#: Of other streams, at a bound of 0.01: how many entries of a hundred are bad, and the share of their answers that is
#: wrong. All others are right.
OTHERS = {"clean": (0, 0.0), "wrong": (5, 1.0), "lapsing": (10, 0.1), "half": (50, 0.5)}
OTHERS_BOUND = 0.01
#: Requests after which the record is read again.
READ_EVERY = 250
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


def others(count: int, bad: int, lapse: float) -> list[Entry]:
    """Entries that are right, except this number of a hundred."""
    # Spread over popular and rare ones alike: 37 and 100 have no common factor.
    return [Entry(0.0, 0.01, lapse if (37 * place + 18) % 100 < bad else 0.0) for place in range(count)]


def bounded(name: str, of: list[Entry], max_error: float, requests: int, seed: int, *, has_record: bool) -> Outcome:
    """Each entry serves where its own tries allow it, and the record of all."""
    dice, coin, record = random.Random(seed), random.Random(seed + 1), Record()
    tried, rechecks = dict[int, Entry](), list[bool]()
    served = wrong = 0
    for number, (entry, similarity, is_right) in enumerate(stream(of, requests, dice)):
        if has_record and number % READ_EVERY == 0:
            record = Record(learned([each.tries for each in tried.values()]), len(rechecks), rechecks.count(False))
        found = trust(entry.tries, similarity, record.bound(max_error), record.prior)
        if coin.random() >= found.run_share:
            served, wrong = served + 1, wrong + (not is_right)
            continue
        entry.tries.append(Try(similarity, is_right))
        tried.pop(id(entry), None)
        tried[id(entry)] = entry
        if found.may_serve:
            rechecks.append(is_right)
    return Outcome(f"{name}, max_error {max_error:g}", served, wrong, requests)


def static(threshold: float, count: int, requests: int, seed: int) -> Outcome:
    """All entries serve above one threshold."""
    dice = random.Random(seed)
    hits = [right for _, alike, right in stream(entries(count, dice), requests, dice) if alike >= threshold]
    return Outcome(f"static {threshold:g}", len(hits), hits.count(False), requests)


def show(rows: list[Outcome]) -> None:
    """A line for each."""
    table = Table("rule", "served", "hits", "wrong", "error among served")
    for each in rows:
        table.add_row(each.rule, str(each.served), f"{each.hits:.3f}", str(each.wrong), f"{each.error:.4f}")
    console.print(table)


@click.command()
@click.option("--entries", "count", type=click.IntRange(min=1), default=300, show_default=True, help="Cached answers.")
@click.option("--requests", type=click.IntRange(min=1), default=20_000, show_default=True, help="Length of the stream.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the entries and the stream.")
@click.option(
    "--off",
    multiple=True,
    type=click.Choice(["bound", "record"]),
    help="Serve above the static threshold 0.9, or leave out the record.",
)
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write all rows.")
def main(count: int, requests: int, seed: int, off: tuple[str, ...], file: Path | None) -> None:
    """Serve a made stream from cached entries by their learned bounds, and by static thresholds beside them.

    The entries are made with a seed. Each answers rightly above a boundary of its own, more or less sharply; 8 % lapse:
    5, 15 or 50 % of their answers are wrong however alike the texts are. Requests are spread over entries by Zipf's
    law. A request that is not served runs, and its answer is a try of the entry; 2 % of the others run too, and up to
    10 % of those that an entry with few tries may serve. The tries of all entries are the record of the app.

    Other streams are there to mislead the record, at 0.01: all entries are right (clean), 5 % of them are always wrong
    (wrong), 10 % are wrong in one of ten answers (lapsing), half are wrong half of the time (half).

    The last line is name=value pairs: error_020, error_010 and error_005, the share of wrong answers among those served
    at max_error 0.02, 0.01 and 0.005; hits_010, the share of requests served at 0.01; error_NAME and hits_NAME, of the
    other streams; static_error and static_hits, of the static threshold 0.9. The status is 1 when an error is above its
    max_error. With --off bound the first three errors are the static threshold's. With --off record no entry learns
    from others.

    \b
    bin/headrace python benchmarks/error_bound.py
    bin/headrace python benchmarks/error_bound.py --off bound --off record
    """
    has_record = "record" not in off
    statics = [static(threshold, count, requests, seed) for threshold in STATIC]
    beside = statics[STATIC.index(0.9)]

    def run(name: str, of: list[Entry], max_error: float) -> Outcome:
        return bounded(name, of, max_error, requests, seed, has_record=has_record)

    # The same entries and requests in each run.
    main_rows = [
        beside if "bound" in off else run("learned", entries(count, random.Random(seed)), bound) for bound in BOUNDS
    ]
    other_rows = {name: run(name, others(count, *bad), OTHERS_BOUND) for name, bad in OTHERS.items()}
    rows = [*main_rows, *other_rows.values(), *statics]
    show(rows)
    names = [f"error_{round(bound * 1000):03}" for bound in BOUNDS]
    figures = {name: each.error for name, each in zip(names, main_rows, strict=True)}
    figures |= {"hits_010": main_rows[1].hits, "static_error": beside.error, "static_hits": beside.hits}
    for name, each in other_rows.items():
        figures |= {f"error_{name}": each.error, f"hits_{name}": each.hits}
    if file is not None:
        file.write_text(json.dumps({"figures": figures, "rows": [asdict(each) for each in rows]}, indent=2) + "\n")
    print(line_of(figures))
    is_above = any(each.error > bound for each, bound in zip(main_rows, BOUNDS, strict=True))
    sys.exit(is_above or any(each.error > OTHERS_BOUND for each in other_rows.values()))


if __name__ == "__main__":
    main()
