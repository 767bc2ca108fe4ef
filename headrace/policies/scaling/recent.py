"""The newest observations: what a pool was asked for and how busy it was, as means over a short time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from statistics import fmean
from typing import Self

from headrace.config import ScalingSettings
from headrace.domain.scaling import History, Moment

#: How far back `reactive` looks, as a share of the policy's window: 2 of 10 minutes.
RECENT_SHARE = 1 / 5

_ORDER = attrgetter(*Moment.__slots__)


def in_order(history: History) -> list[Moment]:
    """The moments, oldest first. Their order does not depend on the one in which they were read."""
    return sorted(history.moments, key=_ORDER)


def since(moments: Sequence[Moment], seconds: float) -> list[Moment]:
    """Those of the moments, of which at least one exists, that are at most so much older than the newest."""
    after = max(moment.at for moment in moments) - timedelta(seconds=seconds)
    return [moment for moment in moments if moment.at > after]


def tokens_per_job(history: History) -> float | None:
    """The tokens of a mean job: of the moments, or of the last days if no job was offered lately. None if unknown."""
    jobs = sum(moment.offered_jobs for moment in history.moments)
    tokens = sum(moment.offered_tokens for moment in history.moments)
    return tokens / jobs if jobs > 0 and tokens > 0 else history.tokens_per_job


@dataclass(frozen=True, slots=True)
class Recent:
    """A pool in the last two minutes, as means.

    Attributes:
        depth: waiting jobs.
        load: the share of running slots in use. Without slots: 1 if any job waits or runs, else 0.
    """

    depth: float
    load: float

    @classmethod
    def of(cls, history: History, policy: ScalingSettings) -> Self:
        """The means of a history with at least one moment."""
        moments = since(history.moments, policy.window_s * RECENT_SHARE)
        depth, running, slots = (fmean(map(attrgetter(name), moments)) for name in ("depth", "running", "slots"))
        if slots <= 0:
            return cls(depth, 1.0 if depth > 0 or running > 0 else 0.0)
        return cls(depth, running / slots)
