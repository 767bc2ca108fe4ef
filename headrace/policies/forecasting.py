"""Forecasts: how fast each lane of a pool drains, from what was observed. Pure: no clock, no I/O.

A fluid model of the take rule in `policies.lanes`. In each step a lane may use its share of what the pool drains; what
it leaves goes to the best lane that still has work. While `high` is in use and has no queue, a few slots are kept for
it, and the other lanes drain correspondingly less. The unit is the expected token: the prompt's tokens, plus an answer
of the lane's usual length.
"""

import json
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any

from headrace.domain.queues import Lane
from headrace.policies.answers import ExpectedOutputs, from_fields, to_fields

#: The length of a forecast's first steps, in seconds; later steps grow in proportion to the time from now.
STEP_S = 0.5
STEP_GROWTH = 0.05
#: How far a forecast reaches, in seconds: the longest `max_wait` of a job.
HORIZON_S = 86_400.0
_LANES = frozenset(Lane)


@dataclass(frozen=True, slots=True)
class LaneRates:
    """The observed load of one lane: how much is accepted into it, and how large its jobs are."""

    arrival_tokens_per_s: float
    mean_tokens: float


@dataclass(frozen=True, slots=True)
class PoolRates:
    """The observed rates of one pool.

    Attributes:
        drain_tokens_per_s_per_slot: measured while every slot had work; None if that was not so lately. Per usable
            slot, so that a worker that joins or leaves counts at once.
        lanes: those that had jobs lately.
        high_is_in_use: True while workers keep slots for `high`, because it had a job lately.
        outputs: expected answer lengths, of lanes that had answers.
        run_s_per_token: seconds that its jobs ran for each token of their answers; None while it ended none lately, or
            has no latency goal.
    """

    drain_tokens_per_s_per_slot: float | None
    lanes: Mapping[Lane, LaneRates] = field(default_factory=dict)
    high_is_in_use: bool = False
    outputs: ExpectedOutputs = field(default_factory=dict)
    run_s_per_token: float | None = None

    def expected_tokens(self, lane: Lane, prompt_tokens: int, max_tokens: int, n: int = 1) -> int:
        """The tokens that a job of `n` answers will likely use; its maximum if nothing was learned about the lane."""
        output = self.outputs.get(lane)
        return prompt_tokens + n * (max_tokens if output is None else math.ceil(output.within(max_tokens)))

    def run_s(self, lane: Lane, max_tokens: int) -> float | None:
        """How long a job will likely run; None while nothing is known of that."""
        return (
            None if self.run_s_per_token is None else self.expected_tokens(lane, 0, max_tokens) * self.run_s_per_token
        )


#: The rates of a pool that was not observed.
UNKNOWN = PoolRates(None)

#: The rates of each observed pool.
Outlook = Mapping[str, PoolRates]


def to_json(outlook: Outlook) -> str:
    """Encode an outlook for `from_json`."""
    return json.dumps({pool: asdict(rates) | {"outputs": to_fields(rates.outputs)} for pool, rates in outlook.items()})


def from_json(text: str) -> Outlook:
    """Decode an outlook that `to_json` encoded."""
    return {pool: _rates(fields) for pool, fields in json.loads(text).items()}


def _rates(fields: dict[str, Any]) -> PoolRates:
    # A process of a newer release may write more lanes, and more about each.
    lanes = {
        Lane(lane): LaneRates(rates["arrival_tokens_per_s"], rates["mean_tokens"])
        for lane, rates in fields["lanes"].items()
        if lane in _LANES
    }
    # A process of an older version writes none of the last three.
    return PoolRates(
        fields["drain_tokens_per_s_per_slot"],
        lanes,
        high_is_in_use=fields.get("high_is_in_use", False),
        outputs=from_fields(fields.get("outputs", {})),
        run_s_per_token=fields.get("run_s_per_token"),
    )


@dataclass(frozen=True, slots=True)
class LaneFlow:
    """One lane now: its takes in one round, as in `policies.lanes`, its backlog, its arrivals and its mean job."""

    takes: int
    backlog_tokens: float
    arrival_tokens_per_s: float
    mean_tokens: float


@dataclass(frozen=True, slots=True)
class DrainCurve:
    """How many tokens of a lane are drained by when, if the lane never runs empty. Starts at (0, 0) and never falls."""

    times_s: tuple[float, ...]
    tokens: tuple[float, ...]

    def seconds_until(self, tokens: float) -> float | None:
        """Seconds until this many tokens are drained; None beyond the horizon."""
        after = bisect_left(self.tokens, tokens)
        if after >= len(self.tokens):
            return None
        return _between(tokens, after, self.tokens, self.times_s)

    def tokens_within(self, seconds: float) -> float:
        """Tokens drained within this many seconds."""
        after = bisect_left(self.times_s, seconds)
        if after >= len(self.times_s):
            return self.tokens[-1]
        return _between(seconds, after, self.times_s, self.tokens)


def _between(x: float, after: int, xs: tuple[float, ...], ys: tuple[float, ...]) -> float:
    """Interpolate linearly at `x` between the points `after - 1` and `after`."""
    if after == 0:
        return ys[0]
    (x0, x1), (y0, y1) = xs[after - 1 : after + 1], ys[after - 1 : after + 1]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0) if x1 > x0 else y1


def drain_curve(
    own: Lane, lanes: Mapping[Lane, LaneFlow], drain_tokens_per_s: float, kept_share: float = 0.0
) -> DrainCurve:
    """How the lane `own` drains from now on, beside the backlog and the arrivals of the other lanes.

    Args:
        lanes: all lanes of the pool, best first.
        drain_tokens_per_s: what the whole pool drains while it has work. Zero makes a curve that never rises.
        kept_share: share of the pool's slots that is kept for `high` while it has no queue.
    """
    flows, at, high = list(lanes.values()), list(lanes).index(own), list(lanes).index(Lane.HIGH)
    weights = [flow.takes * flow.mean_tokens for flow in flows]
    shares = [weight / sum(weights) for weight in weights]
    backlog = [flow.backlog_tokens for flow in flows]
    arriving = [flow.arrival_tokens_per_s for flow in flows]
    drained, times_s, tokens = 0.0, [0.0], [0.0]
    # Lists, since each API process computes the curves of all lanes several times a second.
    for then_s, step_s in _steps():
        capacity = drain_tokens_per_s * step_s
        wanted = [left + more * step_s for left, more in zip(backlog, arriving, strict=True)]
        wanted[at] = capacity
        used = _used(wanted, shares, capacity)
        if kept_share and wanted[high] <= used[high]:
            # `high` has no queue, so slots are kept for it. All lanes together drain only what the other slots can.
            used = _used(wanted, shares, max(used[high], capacity * (1.0 - kept_share)))
        backlog = [each - gone for each, gone in zip(wanted, used, strict=True)]
        drained += used[at]
        times_s.append(then_s)
        tokens.append(drained)
    return DrainCurve(tuple(times_s), tuple(tokens))


def _used(wanted: Sequence[float], shares: Sequence[float], capacity: float) -> list[float]:
    """What each lane drains of `capacity`: up to its share; the rest goes to the best lane that wants more."""
    used = [min(each, capacity * share) for each, share in zip(wanted, shares, strict=True)]
    left = capacity - sum(used)
    for no, each in enumerate(wanted):
        if left <= 0.0:
            break
        more = min(each - used[no], left)
        used[no] += more
        left -= more
    return used


@cache
def _steps() -> Sequence[tuple[float, float]]:
    """The curve's steps: when each ends, and how long it is, in seconds."""
    times = [0.0]
    while times[-1] < HORIZON_S:
        times.append(times[-1] + max(STEP_S, times[-1] * STEP_GROWTH))
    return [(then_s, then_s - now_s) for now_s, then_s in pairwise(times)]
