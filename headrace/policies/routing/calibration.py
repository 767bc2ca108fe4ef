"""Which pools may answer which jobs within an error, as far as labelled examples show. Pure.

Few labels prove little: a pool counts as good enough only if an upper bound of its error is within the limit, not its
measured error. The choice looks at many parts and pools, so the risk is shared among all of these (Bonferroni).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

#: The quantiles of prompt lengths at which a task may be split in two.
SPLITS = (0.25, 0.5, 0.75)
#: Halvings of the interval in which an upper bound lies.
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Trial:
    """One labelled example, answered by one pool.

    Attributes:
        task: None for an example without a task.
        chars: of its prompt, all messages together.
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
        cells: of each pool, the cheapest first.
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
    """The error that is exceeded only with this risk, after so many wrong answers of those that were tried.

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
