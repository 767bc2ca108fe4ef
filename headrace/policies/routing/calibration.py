"""Which pools may answer which jobs within an error, as far as labelled examples show; whether two answers agree. Pure.

Few labels prove little: a pool counts as good enough only if an upper bound of its error is within the limit, not its
measured error. The choice looks at many parts and pools, so the risk is shared among all of these (Bonferroni).
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any

from headrace.policies.reuse import guard
from headrace.policies.reuse.lexicon import normal_form

#: The quantiles of prompt lengths at which a task may be split in two.
SPLITS = (0.25, 0.5, 0.75)
#: Halvings of the interval in which an upper bound lies.
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Trial:
    """One labelled example, answered by one pool.

    Attributes:
        task: None for an example without a task.
        chars: characters of its prompt, all messages together.
    """

    task: str | None
    chars: int
    pool: str
    is_right: bool
    usd: Decimal


@dataclass(frozen=True, slots=True)
class Cell:
    """How one pool did on the examples of one task whose prompts are within two lengths.

    Attributes:
        above, upto: its prompts have more characters than the one and at most the other; None is no bound.
        most_error: the upper bound of the error.
        usd: the mean cost of a job.
    """

    task: str | None
    above: int
    upto: int | None
    pool: str
    labels: int
    wrong: int
    most_error: float
    usd: Decimal

    @property
    def error(self) -> float:
        """The measured share of wrong answers."""
        return self.wrong / self.labels if self.labels else 1.0


@dataclass(frozen=True, slots=True)
class Part:
    """A rule of the outcome: the jobs of one task between two lengths, and the pools that may answer them.

    Attributes:
        cells: one for each pool, the cheapest first.
        chosen: the pools that may answer, the cheapest first.
        is_proven: False if no pool is within the error for sure, and the best one was taken.
    """

    cells: tuple[Cell, ...]
    chosen: tuple[str, ...]
    is_proven: bool

    @property
    def best(self) -> Cell:
        """The cell of the first chosen pool."""
        return next(cell for cell in self.cells if cell.pool == self.chosen[0])


def upper_bound(wrong: int, tried: int, risk: float) -> float:
    """The error that is exceeded only with this risk, after this number of wrong answers among those that were tried.

    Source: Clopper and Pearson 1934, the exact one-sided bound: the p at which P(X <= wrong) is the risk.
    """
    if wrong >= tried:
        return 1.0
    low, high = wrong / tried, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _at_most(wrong, tried, middle) > risk:
            low = middle
        else:
            high = middle
    return high


def labels_needed(max_error: float, risk: float) -> int:
    """The labels that prove an error if all answers are right."""
    return math.ceil(math.log(risk) / math.log1p(-max_error))


def risk_of_one(confidence: float, tasks: int, pools: int) -> float:
    """The risk of each bound, so that all of them hold at once with this confidence."""
    parts = 1 + 2 * len(SPLITS)
    return (1 - confidence) / (parts * pools * tasks)


def calibrate(trials: Sequence[Trial], pools: Sequence[str], max_error: float, confidence: float) -> list[Part]:
    """The cheapest rules within the error, by task; jobs without a task come last.

    Args: pools: from the cheapest to the best, as in a rule. Of two that are equally wrong, the later one is better.
    """
    tasks = sorted({trial.task for trial in trials}, key=lambda task: (task is None, task or ""))
    risk = risk_of_one(confidence, len(tasks), len(pools))
    return [
        part
        for task in tasks
        for part in _of_task([each for each in trials if each.task == task], pools, max_error, risk)
    ]


def _of_task(trials: Sequence[Trial], pools: Sequence[str], max_error: float, risk: float) -> list[Part]:
    """The best way to split the task's jobs by the length of their prompts."""
    ways = [
        [_part(trials, pools, edges, max_error, risk) for edges in pairwise((0, *split, None))]
        for split in ((), *((at,) for at in _splits(trials)))
    ]
    return min(ways, key=lambda parts: (_unproven(parts), _usd(parts), len(parts)))


def _splits(trials: Sequence[Trial]) -> list[int]:
    """The lengths at which the task may be split; the last label's is none."""
    lengths = sorted(trial.chars for trial in trials)
    found = {lengths[int(share * (len(lengths) - 1))] for share in SPLITS}
    return sorted(found - {lengths[-1]})


def _part(
    trials: Sequence[Trial], pools: Sequence[str], edges: tuple[int | None, int | None], max_error: float, risk: float
) -> Part:
    above, upto = edges[0] or 0, edges[1]
    within = [each for each in trials if above < max(1, each.chars) and (upto is None or each.chars <= upto)]
    cells = [_cell(within, pool, above, upto, risk) for pool in pools]
    cheapest = tuple(sorted(cells, key=lambda cell: cell.usd))
    good = tuple(cell.pool for cell in cheapest if cell.most_error <= max_error)
    least = min(cell.wrong for cell in cells)
    best = next(cell.pool for cell in reversed(cells) if cell.wrong == least)
    return Part(cheapest, good or (best,), bool(good))


def _cell(trials: Iterable[Trial], pool: str, above: int, upto: int | None, risk: float) -> Cell:
    its = [each for each in trials if each.pool == pool]
    wrong = sum(not each.is_right for each in its)
    usd = sum((each.usd for each in its), Decimal(0)) / max(1, len(its))
    return Cell(
        its[0].task if its else None, above, upto, pool, len(its), wrong, upper_bound(wrong, len(its), risk), usd
    )


def _unproven(parts: Iterable[Part]) -> int:
    """Labels of which no pool's error is within the limit for sure."""
    return sum(part.best.labels for part in parts if not part.is_proven)


def _usd(parts: Iterable[Part]) -> Decimal:
    return sum((part.best.usd * part.best.labels for part in parts), Decimal(0))


def _at_most(wrong: int, tried: int, error: float) -> float:
    """P(X <= wrong) of a binomial distribution."""
    if error >= 1.0:
        return 0.0
    if error <= 0.0:
        return 1.0
    log_error, log_right = math.log(error), math.log1p(-error)
    whole = math.lgamma(tried + 1)
    terms = (
        whole - math.lgamma(each + 1) - math.lgamma(tried - each + 1) + each * log_error + (tried - each) * log_right
        for each in range(wrong + 1)
    )
    return math.fsum(map(math.exp, terms))


def totals(parts: Iterable[Part]) -> Mapping[str, Decimal]:
    """What the examples cost, by pool, if it answered all; and by `rules`, as the parts say."""
    summed: dict[str, Decimal] = {"rules": Decimal(0)}
    for part in parts:
        summed["rules"] += part.best.usd * part.best.labels
        for cell in part.cells:
            summed[cell.pool] = summed.get(cell.pool, Decimal(0)) + cell.usd * cell.labels
    return summed


# Whether two answers say the same, as far as that can be told without a model. `agree` compares two answers to one
# request, `read_alike` answers to one question in two wordings. Both are meant for short answers: labels, names,
# numbers, JSON. Two free texts hardly ever agree.

#: Code, tables and nested lists, whose spaces mean something.
_LAID_OUT = re.compile(r"```|^[ \t]*\||^[ \t]{2,}\S", re.M)
#: What may stand around an answer without changing it.
_AROUND = " \t\r\n.,;:!?\"'`*“”„’()[]"  # noqa: RUF001


def normalised(text: str) -> str:
    """The text in one Unicode form and letter case, with single spaces, without punctuation around it."""
    folded = normal_form("NFKC", text).casefold()
    return re.sub(r"\s+", " ", folded).strip(_AROUND)


def same_text(one: str, other: str) -> bool:
    """Equal once both are normalised."""
    return normalised(one) == normalised(other)


def same_json(one: str, other: str) -> bool:
    """Equal as JSON, whatever the spaces and the order of names. False if either is not JSON, or too deep."""
    try:
        return _canonical(json.loads(one)) == _canonical(json.loads(other))
    except (ValueError, RecursionError):
        return False


def contains(text: str, part: str) -> bool:
    """Whether the text has the part in it as whole words, once both are normalised."""
    wanted = normalised(part)
    return bool(wanted) and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", normalised(text)) is not None


def agree(one: str, other: str, response_format: Mapping[str, Any] | None) -> bool:
    """Whether two answers to one request agree: as JSON if it asked for JSON, else as text."""
    # A stored format may be malformed.
    wants_json = isinstance(response_format, Mapping) and response_format.get("type", "text") != "text"
    return same_json(one, other) if wants_json else same_text(one, other)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def read_alike(one: str, other: str) -> bool:
    """Whether two answers have the same lines, are equal JSON, or read as the same (`reuse.guard`). Symmetric.

    For answers to one question in two wordings, to tell whether the one could have served for the other. A doubt counts
    against the cache: answers that say the same in words which the guard cannot join count as different. The cost is
    hits, of questions that a model answers in free prose. Short and closed answers agree: labels, names, numbers, JSON.
    """
    if _lines(one) == _lines(other):
        return True
    as_json = _json(one), _json(other)
    if any(as_json):
        return as_json[0] == as_json[1]
    if _LAID_OUT.search(one) or _LAID_OUT.search(other):
        return False
    return guard.compare(one, other).may_serve


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def _json(text: str) -> str | None:
    """An object or a list in one spelling; None for any other text. Other JSON is plain text too."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except (ValueError, RecursionError):
        return None
