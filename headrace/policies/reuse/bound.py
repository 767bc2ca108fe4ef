"""The bound of a cached entry: above which similarity its answer may serve, learned from tries. Pure.

A try is a request that ran although the entry might have served it, so that both answers could be compared. An entry
without tries serves nothing; it earns trust.

The model is that of vCache (Schroeder et al., "vCache: Verified Semantic Prompt Caching", arXiv 2502.03771): an entry
answers a request of similarity s rightly with the probability L(s) = 1 / (1 + exp(-g (s - t))). The threshold t and the
slope g are its own. vCache estimates t and g by maximum likelihood, takes a confidence bound of t, and runs the request
with the probability tau for which (1 - tau) (1 - L) is at most the allowed error. Three things differ here:

- What is bounded is the share of wrong answers among those *served*, not among all requests: the request runs unless
  its own probability of a wrong answer is at most `max_error`. vCache serves an entry of L = 0.5 at times, if rarely.
- The posterior of t and g over a grid takes the place of the estimate. It needs no correction where right and wrong
  tries are perfectly separated, or where all are right, as for most entries; there maximum likelihood has no finite
  answer, and vCache's code a table of measured variances.
- A lapse l, as in psychometric functions (Wichmann and Hill 2001): L(s) = (1 - l) / (1 + exp(-g (s - t))). It stands
  for entries that are wrong now and then however alike the texts are, because the answer depends on more than the text.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product

#: The share of served answers that may be wrong.
DEFAULT_MAX_ERROR = 0.01
#: Tries before which an entry serves nothing. Source: vCache's code.
MIN_TRIES = 6
#: Requests that run although the entry may serve them, so that an answer that has become wrong is noticed.
RECHECK_SHARE = 0.02
#: The same for an entry with few tries, as a multiple of 1 / tries: what serves early is looked at more often.
EARLY_RECHECKS = 0.2
#: The newest tries that count: older ones may be of another time.
MAX_TRIES = 128
#: Similarities are read in steps of this size.
_STEP = 0.01

#: The grid. Thresholds at and above 1 stand for entries that serve no other text at all.
_THRESHOLDS = (0.3, 0.4, 0.5, *(round(0.55 + 0.025 * step, 3) for step in range(19)), 1.05, 1.1)
_SLOPES = (12.0, 25.0, 50.0, 100.0, 200.0)
#: Each lapse and its share of entries before any try. More than one entry in three is assumed to lapse.
_LAPSES = ((0.0, 0.6), (0.005, 0.12), (0.02, 0.12), (0.1, 0.1), (0.4, 0.06))
_GRID = tuple(product(_THRESHOLDS, _SLOPES, _LAPSES))


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """What is believed of an entry before its own tries.

    Attributes:
        weights: one for each point of the grid; they sum to 1.
        min_tries: tries of its own before which the entry serves nothing.
    """

    weights: tuple[float, ...] = field(repr=False)
    min_tries: int

    def after(self, tries: Sequence["Try"]) -> tuple[float, ...]:
        """The weights after these tries."""
        likelihood = _likelihood(tuple(sorted(_counts(tries).items())))
        weights = [weight * likely for weight, likely in zip(self.weights, likelihood, strict=True)]
        total = math.fsum(weights)
        return tuple(weight / total for weight in weights)


def _assumed() -> Prior:
    shares = [share for _, _, (_, share) in _GRID]
    total = math.fsum(shares)
    return Prior(tuple(share / total for share in shares), MIN_TRIES)


#: The prior for an app without a record: four entries in ten lapse, and thresholds are anywhere.
ASSUMED = _assumed()


@dataclass(frozen=True, slots=True)
class Try:
    """One comparison of the entry's answer with a fresh one.

    Attributes: similarity: the cosine of the two requests' embeddings.
    """

    similarity: float
    is_right: bool


@dataclass(frozen=True, slots=True)
class Trust:
    """Whether an entry may serve a request.

    Attributes:
        error: the probability that its answer would be wrong, as far as its tries tell.
        run_share: of such requests, the share that runs anyway and is compared; 1 while the entry may not serve.
    """

    may_serve: bool
    error: float
    run_share: float
    reason: str


def trust(
    tries: Sequence[Try], similarity: float, max_error: float = DEFAULT_MAX_ERROR, prior: Prior = ASSUMED
) -> Trust:
    """Whether an entry with these tries, oldest first, may serve a request of this similarity.

    Args: prior: what the app's other entries say of it; see `Record`.
    Bound: time does not grow with the number of tries, of which `MAX_TRIES` count.
    """
    if not 0 < max_error < 1:
        raise ValueError(f"max_error must be between 0 and 1, not {max_error}.")
    error = wrong_probability(tries, similarity, prior)
    if len(tries) < prior.min_tries:
        return Trust(False, error, 1.0, f"{len(tries)} tries of at least {prior.min_tries}")
    if error > max_error:
        return Trust(False, error, 1.0, f"it may be wrong with probability {error:.4f}, above {max_error:g}")
    rechecks = max(RECHECK_SHARE, EARLY_RECHECKS / len(tries))
    return Trust(True, error, rechecks, f"it may be wrong with probability {error:.4f}, after {len(tries)} tries")


def wrong_probability(tries: Sequence[Try], similarity: float, prior: Prior = ASSUMED) -> float:
    """The mean of 1 - L over the posterior: the probability that the entry's answer is wrong at this similarity."""
    rights = _rights(_step_of(similarity))
    return 1.0 - math.fsum(weight * right for weight, right in zip(prior.after(tries), rights, strict=True))


def _counts(tries: Sequence[Try]) -> Counter[tuple[int, bool]]:
    return Counter((_step_of(each.similarity), each.is_right) for each in tries[-MAX_TRIES:])


def _step_of(similarity: float) -> int:
    return round(min(1.0, max(0.0, similarity)) / _STEP)


@lru_cache(maxsize=4096)
def _likelihood(counts: tuple[tuple[tuple[int, bool], int], ...]) -> tuple[float, ...]:
    """The likelihood of these tries, counted by kind, at each point of the grid; 1 where it is highest."""
    logs = [0.0] * len(_GRID)
    for (step, is_right), count in counts:
        logs = [each + count * log for each, log in zip(logs, _logs(step, is_right), strict=True)]
    highest = max(logs)
    return tuple(math.exp(each - highest) for each in logs)


@lru_cache(maxsize=256)
def _logs(step: int, is_right: bool) -> tuple[float, ...]:
    return tuple(math.log(max(right if is_right else 1.0 - right, 1e-12)) for right in _rights(step))


@lru_cache(maxsize=128)
def _rights(step: int) -> tuple[float, ...]:
    """The probability of a right answer at a similarity, for each point of the grid."""
    return tuple((1.0 - lapse) / (1.0 + math.exp(-slope * (step * _STEP - at))) for at, slope, (lapse, _) in _GRID)


# The record of an app: what the tries of all its entries say of an entry that has few of its own.
#
# `trust` assumes before the first try that four entries in ten lapse. An app whose entries were right without exception
# has shown that it is better than that, and one whose entries are half wrong that it is worse. The prior that is
# learned from the entries takes the place of the assumed one: empirical Bayes.
#
# The estimate is the nonparametric one of Laird (1978) by expectation-maximisation: the prior is the mean of the
# entries' posteriors, which follow from the prior, and so on. It is conservative in three ways:
#
# - The assumption counts as `ASSUMED_ENTRIES` entries (a Dirichlet prior), and the newest `MOST_ENTRIES` entries count.
#   So the assumed share of bad entries never falls below 20 / (20 + 128) of itself, however good the record is.
# - What counts is entries, not tries: one with few tries moves the prior little, one with many as one entry at most.
#   And the iteration, which begins at the assumption, ends before it has converged.
# - An entry serves nothing before `LEAST_TRIES` tries of its own, and what serves early is rechecked more often
#   (`EARLY_RECHECKS`), so that new entries that are worse than the old ones are noticed.
#
# With the assumed prior the bound holds on average over entries that are no worse than assumed. With a learned one it
# holds on average over what an app is served, if its new entries are like its newest 128.
#
# Rechecks are a sample of what is served, whatever the entries are like. Where more of them are wrong than the bound
# allows, the model does not fit the app, and the app is held to a bound that is smaller by the same factor.

#: The entries for which the assumption stands, and the least that make a record.
ASSUMED_ENTRIES = 20
#: The newest entries that count: older ones may be of another time.
MOST_ENTRIES = 128
#: Tries of its own before which an entry serves nothing, however good the record is.
LEAST_TRIES = 2
#: Steps of the expectation-maximisation.
STEPS = 6


@dataclass(frozen=True, slots=True)
class Record:
    """What an app's tries say.

    Attributes:
        prior: what is believed of an entry before its own tries.
        rechecks, wrong: requests that ran although an entry might have served them, and those of them for which its
            answer would have been wrong.
    """

    prior: Prior = ASSUMED
    rechecks: int = 0
    wrong: int = 0

    def bound(self, max_error: float) -> float:
        """The error to which an entry is held, so that at most `max_error` of what is served is wrong."""
        # Half of a wrong answer is assumed beforehand, at the rate that is allowed: a single one says little.
        observed = (self.wrong + 0.5) / (self.rechecks + 0.5 / max_error)
        return max_error * min(1.0, max_error / observed)


def learned(entries: Sequence[Sequence[Try]]) -> Prior:
    """The prior of an app's entries, given the tries of each; the entry that was tried last comes last.

    Bound: `STEPS` times `MOST_ENTRIES` products over the grid: a tenth of a second.
    """
    if len(entries) < ASSUMED_ENTRIES:
        return ASSUMED
    alike = Counter(tuple(tries) for tries in entries[-MOST_ENTRIES:])
    found = ASSUMED
    for _ in range(STEPS):
        weights = [ASSUMED_ENTRIES * weight for weight in ASSUMED.weights]
        for tries, count in alike.items():
            weights = [weight + count * own for weight, own in zip(weights, found.after(tries), strict=True)]
        total = math.fsum(weights)
        found = Prior(tuple(weight / total for weight in weights), LEAST_TRIES)
    return found
