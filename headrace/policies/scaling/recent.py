"""The newest observations: what a pool was asked for and how busy it was, as means over a short time."""

from dataclasses import dataclass, replace
from datetime import timedelta
from operator import attrgetter
from statistics import fmean
from typing import Self

from headrace.config import ScalingSettings
from headrace.domain.scaling import History, Moment

#: How far back `reactive` looks, as a share of the policy's window: 2 of 10 minutes.
RECENT_SHARE = 1 / 5

_ORDER = attrgetter(*Moment.__slots__)


def in_order(history: History) -> History:
    """The history with its moments oldest first, which the functions of this package rely on."""
    return replace(history, moments=tuple(sorted(history.moments, key=_ORDER)))


def since(history: History, seconds: float) -> list[Moment]:
    """The moments that are less than so much older than the newest."""
    after = history.moments[-1].at - timedelta(seconds=seconds)
    return [moment for moment in history.moments if moment.at > after]


def observed_s(history: History, policy: ScalingSettings) -> float:
    """How much of the window was observed, in seconds."""
    return sum(moment.seconds for moment in since(history, policy.window_s) if moment.seconds > 0)


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
        moments = since(history, policy.window_s * RECENT_SHARE)
        depth, running, slots = (fmean(map(attrgetter(name), moments)) for name in ("depth", "running", "slots"))
        if slots <= 0:
            return cls(depth, 1.0 if depth > 0 or running > 0 else 0.0)
        return cls(depth, running / slots)
