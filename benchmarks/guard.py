"""The guard of the semantic cache on pairs of requests, beside the cosine of their embeddings alone.

The claim: of pairs that look alike and ask for different things, the guard serves none, and it serves at least half of
the paraphrases, with entries trusted. No threshold of the cosine does either. The embeddings are MiniLM's, from vLLM.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from pathlib import Path

import click
from rich.table import Table

from bed import minilm
from bed.pairs.pairs import Pair, own_pairs, pairs_of, texts_of
from bed.real_engine import check_installed
from bed.testbed import console, line_of
from headrace.policies.reuse.guard import GuardVerdict, compare
from peers.json_peer import JsonPeer

COSINES = (0.8, 0.9, 0.95)
#: The cosine that a trusted entry asks for. Its own bound is learned; this stands for one with many right tries.
TRUSTED = 0.5
GOAL_HITS = 0.5

Rule = Callable[["Judged"], bool]


@dataclass(frozen=True, slots=True)
class Judged:
    """A pair, the cosine of its embeddings, and the guard's verdict."""

    pair: Pair
    cosine: float
    verdict: GuardVerdict


def embeddings(texts: Sequence[str]) -> dict[str, list[float]]:
    """Each text's vector."""
    check_installed()
    env = minilm.settings()
    console.print(f"Embedding {len(texts)} texts with {minilm.MODEL}; the model loads for half a minute.")
    peer = JsonPeer("peers.sentence_embedder", env)
    try:
        return dict(zip(texts, peer.ask({"texts": list(texts)})["vectors"], strict=True))
    finally:
        peer.close()


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Of two vectors of any length above 0."""
    return _dot(one, other) / (_dot(one, one) * _dot(other, other)) ** 0.5


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(map(mul, one, other))


def judge(pairs: Sequence[Pair]) -> list[Judged]:
    """Ask both about every pair."""
    vectors = embeddings(texts_of(pairs))
    return [Judged(pair, cosine(vectors[pair.a], vectors[pair.b]), compare(pair.a, pair.b)) for pair in pairs]


def rules(off: str | None) -> Mapping[str, Rule]:
    """What is compared: the guard with a trusted entry, and cosines alone."""
    ours: Rule = (lambda each: each.cosine >= TRUSTED) if off else _serves
    alone: dict[str, Rule] = {f"cosine {least}": lambda each, least=least: each.cosine >= least for least in COSINES}  # type: ignore[misc]
    return {"guard off" if off else "guard": ours, **alone}


def _serves(each: Judged) -> bool:
    return each.verdict.may_serve and each.cosine >= TRUSTED


def table(judged: Sequence[Judged], by: Mapping[str, Rule], *, same: bool) -> Table:
    """What each rule serves of the pairs that it should serve, or should not, by kind and by half."""
    title = "Paraphrases served (more is better)" if same else "Other requests served (each is wrong)"
    made = Table("kind", "pairs", *by, title=title, title_justify="left")
    rows = [each for each in judged if each.pair.same is same]
    groups = {each.pair.kind: [one for one in rows if one.pair.kind == each.pair.kind] for each in rows}
    halves = {f"half: {each.pair.half}": [one for one in rows if one.pair.half == each.pair.half] for each in rows}
    for name, members in (*sorted(groups.items()), *sorted(halves.items()), ("all", rows)):
        served = (sum(map(rule, members)) for rule in by.values())
        made.add_row(name, str(len(members)), *(f"{count} ({count / max(len(members), 1):.0%})" for count in served))
    return made


def figures_of(judged: Sequence[Judged], off: str | None) -> dict[str, int | float]:
    """The last line."""
    ours = next(iter(rules(off).values()))
    same = [each for each in judged if each.pair.same]
    other = [each for each in judged if not each.pair.same]
    alone = rules(off)["cosine 0.9"]
    return {
        "false_hits": sum(map(ours, other)),
        "paraphrase_hits": sum(map(ours, same)) / max(len(same), 1),
        "cosine_false_hits": sum(map(alone, other)),
    }


def write(file: Path, judged: Sequence[Judged], figures: Mapping[str, float]) -> None:
    """Write every pair with its cosine and verdict."""
    rows = [
        {
            "a": each.pair.a,
            "b": each.pair.b,
            "same": each.pair.same,
            "kind": each.pair.kind,
            "half": each.pair.half,
            "cosine": round(each.cosine, 4),
            "may_serve": each.verdict.may_serve,
            "reason": each.verdict.reason,
        }
        for each in judged
    ]
    file.write_text(json.dumps({"figures": figures, "pairs": rows}, indent=2, ensure_ascii=False) + "\n")


@click.command()
@click.option(
    "--pairs",
    "given",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help='Other pairs: lines of {"a", "b", "same"}, and "kind" if they have one.',
)
@click.option(
    "--off", type=click.Choice(["guard"]), help="Serve what a trusted entry's cosine allows, without the guard."
)
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write all pairs."
)
def main(given: Path | None, off: str | None, file: Path | None) -> None:
    """Compare the guard with the cosine of MiniLM's embeddings, on pairs with a known verdict.

    The pairs are benchmarks/bed/pairs: requests that look alike and ask for different things (negation, opposites,
    numbers, units, dates, names, reversed roles, code, two languages), and paraphrases, in English and German. Half of
    them were only counted while the guard was written (`held`), so that both halves are shown.

    A pair is served if the guard agrees and the cosine is at least 0.5, as a trusted entry asks. Beside it, the cosine
    alone serves from 0.8, 0.9 or 0.95.

    The last line is name=value pairs: false_hits, pairs served wrongly; paraphrase_hits, the share of paraphrases
    served; and cosine_false_hits, what the cosine alone serves wrongly at 0.9. The status is 1 when a pair is served
    wrongly, or fewer than half of the paraphrases are served. With --off guard the first two are those of the cosine
    from 0.5.

    \b
    bin/headrace python benchmarks/guard.py
    bin/headrace python benchmarks/guard.py --pairs FILE.jsonl
    bin/headrace python benchmarks/guard.py --off guard
    """
    judged = judge(pairs_of(given) if given else own_pairs())
    figures = figures_of(judged, off)
    for same in (False, True):
        console.print(table(judged, rules(off), same=same))
    for each in judged:
        if _serves(each) and not each.pair.same:
            console.print(f"Served wrongly ({each.cosine:.3f}): {each.pair.a} | {each.pair.b}")
    if file is not None:
        write(file, judged, figures)
    print(line_of(figures))
    sys.exit(0 if not figures["false_hits"] and figures["paraphrase_hits"] >= GOAL_HITS else 1)


if __name__ == "__main__":
    main()
