"""The record of an app: what the tries of all its entries say of an entry that has few of its own. Pure.

`bound.trust` assumes before the first try that four entries in ten lapse. An app whose entries were right without
exception has shown that it is better than that, and one whose entries are half wrong that it is worse. The prior that
is learned from the entries takes the place of the assumed one: empirical Bayes.

The estimate is the nonparametric one of Laird (1978) by expectation-maximisation: the prior is the mean of the entries'
posteriors, which follow from the prior, and so on. It is conservative in three ways:

- The assumption counts as `ASSUMED_ENTRIES` entries (a Dirichlet prior), and the newest `MOST_ENTRIES` entries count.
  So the assumed share of bad entries never falls below 20 / (20 + 128) of itself, however good the record is.
- What counts is entries, not tries: one with few tries moves the prior little, one with many as one entry at most. And
  the iteration, which begins at the assumption, ends before it has converged.
- An entry serves nothing before `LEAST_TRIES` tries of its own, and what serves early is rechecked more often
  (`bound.EARLY_RECHECKS`), so that new entries that are worse than the old ones are noticed.

With the assumed prior the bound holds on average over entries that are no worse than assumed. With a learned one it
holds on average over what an app is served, if its new entries are like its newest 128.

Rechecks are a sample of what is served, whatever the entries are like. Where more of them are wrong than the bound
allows, the model does not fit the app, and the app is held to a bound that is smaller by the same factor.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.policies.reuse.bound import ASSUMED, Prior, Try

#: The entries for which the assumption stands, and the least that make a record.
ASSUMED_ENTRIES = 20
#: The newest entries that count: older ones may be of another time.
MOST_ENTRIES = 128
#: An entry serves nothing before so many tries of its own, however good the record is.
LEAST_TRIES = 2
#: Steps of the expectation-maximisation.
STEPS = 6


@dataclass(frozen=True, slots=True)
class Record:
    """What an app's tries say.

    Attributes:
        prior: of an entry, before its own tries.
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
