"""Scaling: what a pool was asked for, which hosts it has, and what was decided. Frozen values, all in one pool's terms.

Tokens are those of whole jobs: the prompt, and the answer's expected length. Rates are per second.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Action(StrEnum):
    """What a decision does."""

    UP = "up"
    DOWN = "down"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Moment:
    """What a pool was asked for during one interval, and how it stood at the interval's end, over all lanes.

    Attributes:
        at: the end of the interval.
        seconds: its length.
        offered_jobs: new jobs that wanted this pool: accepted, refused for lack of room or time, or spilled to the paid
            API. Jobs that an app's own rate or budget refused are not counted, nor are the discounted ones.
        offered_tokens: their tokens.
        refused_jobs: the refused ones among them.
        spilled_jobs: the spilled ones among them.
        depth: waiting jobs.
        depth_tokens: their tokens.
        running: jobs that run on the pool's workers.
        slots: jobs that its ready workers can run at once; draining hosts do not count.
        discounted_jobs: refused jobs that are no demand: requests that were repeated, and what one app had refused far
            beyond what it was served.
        discounted_tokens: their tokens.
    """

    at: datetime
    seconds: float
    offered_jobs: int
    offered_tokens: int
    refused_jobs: int
    spilled_jobs: int
    depth: int
    depth_tokens: int
    running: int
    slots: int
    discounted_jobs: int = 0
    discounted_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Season:
    """What past days of the same kind (working day or weekend) lead one to expect.

    Attributes:
        step_s: the time between two rates.
        rates: offered tokens per second: now, one step later, and so on.
    """

    step_s: float
    rates: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ErrorProfile:
    """How past forecasts of one kind compare with what came.

    Attributes:
        is_burst: of forecasts that were made in a burst.
        above_hosts: the least work of its forecasts, in hosts; the next profile's is the end.
        count: forecasts that were compared.
        ratios: quantiles of actual / forecast, evenly spaced from the lowest (0 %) to the highest (100 %).
    """

    is_burst: bool
    above_hosts: float
    count: int
    ratios: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PastNeed:
    """What an earlier decision found necessary.

    Attributes:
        need: hosts that the load needed.
        spare_need: hosts below which none is spare: `need` with a margin, so that a host is not removed and ordered
            again.
    """

    at: datetime
    need: int
    spare_need: int


@dataclass(frozen=True, slots=True)
class DemandHistory:
    """What a decision knows of the past, in any order.

    Attributes:
        moments: the last ones, for at least the policy's window.
        season: None before a whole day of the present kind was seen.
        errors: empty before enough forecasts were compared.
        needs: those of the last decisions, for at least the policy's window.
        burst_until: an earlier decision saw a burst, which counts until then; None for no burst.
        tokens_per_job: the mean of the last days' jobs, which counts while no job is offered; None if unknown.
    """

    moments: tuple[Moment, ...] = ()
    season: Season | None = None
    errors: tuple[ErrorProfile, ...] = ()
    needs: tuple[PastNeed, ...] = ()
    burst_until: datetime | None = None
    tokens_per_job: float | None = None


@dataclass(frozen=True, slots=True)
class PoolHosts:
    """A pool's hosts now, and what a host means.

    Attributes:
        ready: hosts with at least one live worker that is ready or loads its engine again.
        requested: hosts that were ordered and are not ready yet. Those that were written off do not count.
        draining: hosts that finish their jobs and then end; they can be called back.
        tokens_per_s: tokens that one saturated host serves; None if it is neither measured nor set.
        slots_per_host: jobs that one host runs at once; None before one was seen.
        provision_s: the time from an order to the first ready worker that 90 % of the hosts meet.
        usd_per_hour: the price of a host; None if it is unknown.
        spill_usd: the mean price of one of the pool's jobs at the paid API; None if jobs may not go there.
        spill_tokens_per_s: tokens that the paid API can take; None if its limit is unknown.
        up_at: when the last applied decision added hosts.
        down_at: when the last applied decision removed hosts.
    """

    ready: int
    requested: int = 0
    draining: int = 0
    tokens_per_s: float | None = None
    slots_per_host: float | None = None
    provision_s: float = 300.0
    usd_per_hour: float | None = None
    spill_usd: float | None = None
    spill_tokens_per_s: float | None = None
    up_at: datetime | None = None
    down_at: datetime | None = None

    @property
    def count(self) -> int:
        """Hosts that serve or will: ready and on their way. The number that a decision's target is compared with."""
        return self.ready + self.requested


@dataclass(frozen=True, slots=True)
class DemandForecast:
    """What `predictive` expects.

    Attributes:
        tokens_per_s: the offered load at `at`.
        why: what it follows from: `level`, `trend`, `season`, or the name of a calendar event.
        is_burst: the last minute was far above the ones before.
    """

    at: datetime
    tokens_per_s: float
    why: str
    is_burst: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """How many hosts a pool should have, and why.

    Attributes:
        target: hosts to have, ready and on their way. If it equals the present number, nothing changes.
        reason: in words, for operators.
        need: hosts that the load needs; see `PastNeed`.
        forecast: None where the policy makes none.
        burst_until: a burst counts until then; None for no burst.
    """

    target: int
    action: Action
    reason: str
    need: int | None = None
    spare_need: int | None = None
    forecast: DemandForecast | None = None
    burst_until: datetime | None = None
