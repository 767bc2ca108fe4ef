"""Pairs of requests with the right verdict: those of `hand.jsonl`, `fresh.jsonl` and `made.py`, or those of a file."""

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from bed.pairs.made import made_pairs

HAND = Path(__file__).with_name("hand.jsonl")
#: Written without a look at the rules, and not changed since.
FRESH = Path(__file__).with_name("fresh.jsonl")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two requests.

    Attributes:
        same: one answer may serve both.
        kind: what the pair is about.
        half: `tuned`, looked at while the guard was written; `held`, which was only counted; `fresh`, written
            without a look at the guard; `given` from a file.
    """

    a: str
    b: str
    same: bool
    kind: str
    half: str


def own_pairs() -> list[Pair]:
    """The set of this project: written by hand, and made from templates."""
    hand = [json.loads(line) for file in (HAND, FRESH) for line in file.read_text(encoding="utf-8").splitlines()]
    made = [{**row, "half": _half(row["a"], row["b"])} for row in made_pairs()]
    return [Pair(**row) for row in (*hand, *made)]


def pairs_of(file: Path) -> list[Pair]:
    """The pairs of a file of lines `{"a", "b", "same"}`; `kind` is optional. Raises: ClickException."""
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            same = bool(row["same"])
            found.append(Pair(str(row["a"]), str(row["b"]), same, str(row.get("kind") or _kind(same)), "given"))
        except (ValueError, KeyError, TypeError) as error:
            raise click.ClickException(f'{file}, line {number}: not a pair {{"a", "b", "same"}}.') from error
    if not found:
        raise click.ClickException(f"{file} has no pairs.")
    return found


def texts_of(pairs: Iterable[Pair]) -> list[str]:
    """Each text once."""
    return list(dict.fromkeys(text for pair in pairs for text in (pair.a, pair.b)))


def _kind(same: bool) -> str:
    return "paraphrase" if same else "different"


def _half(a: str, b: str) -> str:
    """The same half for a pair in every run. A checksum decides, so that nothing about the pair does."""
    return "held" if zlib.crc32(f"{a}|{b}".encode()) % 2 else "tuned"
