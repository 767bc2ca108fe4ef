"""The forecast: how long a job at a given place will likely wait, and how much a queue drains in a given time.

Combines live figures (waiting jobs, free slots) with observed rates (the pool's drain, arrivals). Decides nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from statistics import fmean

from headrace.broker.admission import Admission
from headrace.cached_value import CachedValue
from headrace.config import Settings
from headrace.domain.fleet import Fleet, fleet_of
from headrace.domain.jobs import JobSpec
from headrace.domain.places import Load
from headrace.domain.queues import OVERFLOW, Lane, queue_name
from headrace.errors import BrokerUnavailable
from headrace.policies.forecasting import (
    UNKNOWN,
    DrainCurve,
    LaneFlow,
    LaneRates,
    Outlook,
    PoolRates,
    drain_curve,
    from_json,
)
from headrace.policies.lanes import kept_share
from headrace.policies.routing import LatencyGoal, Pressure

#: How old the observed rates may be, in seconds. `observe` measures them every few seconds.
OUTLOOK_TTL_S = 1.0
#: How old a pool's live figures may be, in seconds.
LIVE_TTL_S = 0.25
#: Seconds after a request for which both are kept fresh: reading them takes milliseconds, and the next request waits
#: for them otherwise.
FRESH_S = 10.0


@dataclass(frozen=True, slots=True)
class PoolForecast:
    """One pool as it stood a moment ago, and how its lanes drain from then on.

    Attributes:
        mean_tokens: of one job of each lane.
        is_measured: False when the drain rate is the configured one.
        curves: empty when no drain rate is known.
        departed: jobs that had ever left the pool's queues, read before its fleet.
        kept: slots that are kept free for `high`.
        next_end_s: seconds until the job ends that has run longest, if it runs as long as the mean one.
    """

    fleet: Fleet
    loads: dict[Lane, Load]
    mean_tokens: dict[Lane, float]
    is_measured: bool
    drain_tokens_per_s: float
    curves: dict[Lane, DrainCurve]
    departed: int
    kept: int
    next_end_s: float

    def free(self, lane: Lane) -> int:
        """Slots that take a job of this lane at once."""
        kept = 0 if lane is Lane.HIGH else self.kept
        return max(0, self.fleet.slots - self.fleet.running - kept)


class Forecast:
    """Expected waits, for all threads of one process."""

    def __init__(
        self, admission: Admission, read_fleets: Callable[[], Mapping[str, Fleet]], settings: Settings
    ) -> None:
        """Read nothing yet. Args: read_fleets: the live fleet of each pool, from Postgres."""
        self._admission = admission
        self._read_fleets = read_fleets
        self._settings = settings
        self._outlook = CachedValue(self._read_outlook, OUTLOOK_TTL_S, fresh_s=FRESH_S)
        self._pools: dict[str, CachedValue[PoolForecast]] = {}

    def pool(self, name: str) -> PoolForecast:
        """A pool's forecast. Raises: BrokerUnavailable. StoreUnavailable."""
        if name not in self._pools:
            self._pools.setdefault(name, CachedValue(lambda: self._read_pool(name), LIVE_TTL_S, fresh_s=FRESH_S))
        return self._pools[name].get()

    def close(self) -> None:
        """Keep nothing fresh any longer."""
        self._outlook.close()
        for pool in self._pools.values():
            pool.close()

    def expected_wait_s(self, queue: str, position: int, ahead_tokens: int, free: int) -> float | None:
        """Seconds until the job at this place starts; None when no rate is known.

        Free slots take the first jobs at once. Any other job waits until the jobs between those and itself have
        drained, and until one more slot frees.

        Args:
            position: counts from 1.
            ahead_tokens: tokens that the `position - 1` jobs before it will likely take.
            free: slots that take a job at once.
        """
        pool, lane = _split(queue)
        now = self.pool(pool)
        if position <= free:
            return 0.0
        curve = now.curves.get(lane)
        if curve is None:
            return None
        mean_tokens = ahead_tokens / (position - 1) if position > 1 else now.mean_tokens[lane]
        wait_s = curve.seconds_until((position - free) * mean_tokens)
        return None if wait_s is None else round(wait_s, 2)

    def wait_if_submitted_s(self, queue: str) -> float | None:
        """Seconds that a job at the end of the queue would wait, of a new app or of the only one; None: unknown."""
        pool, lane = _split(queue)
        now = self.pool(pool)
        load = now.loads[lane]
        return self.expected_wait_s(queue, load.jobs + 1, load.expected_tokens, now.free(lane))

    def expected_tokens(self, spec: JobSpec) -> int | None:
        """The tokens that a job will likely take; None where Redis does not answer."""
        try:
            rates = self._outlook.get().get(spec.pool, UNKNOWN)
        except BrokerUnavailable:
            return None
        return rates.expected_tokens(spec.lane, spec.prompt_tokens, spec.sampling.max_tokens, spec.sampling.n)

    def expected_output(self, pool: str, lane: Lane, max_tokens: int) -> int:
        """The tokens that an answer will likely have; `max_tokens` where Redis does not answer."""
        try:
            rates = self._outlook.get().get(pool, UNKNOWN)
        except BrokerUnavailable:
            return max_tokens
        return rates.expected_tokens(lane, 0, max_tokens)

    def latency_goal(self, spec: JobSpec) -> LatencyGoal | None:
        """The goal of the job's pool; None without one, for a background job, and where Redis does not answer."""
        pool = self._settings.pools.get(spec.pool)
        if pool is None or pool.latency_goal_s is None or not spec.is_interactive:
            return None
        try:
            rates = self._outlook.get().get(spec.pool, UNKNOWN)
        except BrokerUnavailable:
            return None
        return LatencyGoal(spec.pool, pool.latency_goal_s, rates.run_s(spec.lane, spec.sampling.max_tokens))

    def pressure(self, queue: str) -> Pressure:
        """How far behind the queue is. What waits in lanes below it delays it little, as lines of batches do.

        Raises: BrokerUnavailable. StoreUnavailable.
        """
        pool, lane = _split(queue)
        now = self.pool(pool)
        ahead = sum(load.jobs for other, load in now.loads.items() if other.priority <= lane.priority)
        return Pressure(ahead, now.fleet.slots, now.fleet.kv_use, now.fleet.takes_at_once)

    def spilled(self) -> int:
        """Jobs that wait for the paid API, all lanes together. Raises: BrokerUnavailable. StoreUnavailable."""
        return sum(load.jobs for load in self.pool(OVERFLOW).loads.values())

    def free_until(self, queue: str) -> int:
        """The pool's count of departed jobs when all slots open to the lane are taken: see `Candidate.free_until`."""
        pool, lane = _split(queue)
        now = self.pool(pool)
        return now.departed + now.free(lane)

    def ahead_cap_tokens(self, queue: str, max_wait_s: float, *, by_settings: bool = False) -> int | None:
        """Tokens that the queue drains within `max_wait_s`; None while the drain rate has not been measured.

        Args: by_settings: until then, go by the pool's `drain_jobs_per_s`.
        """
        pool, lane = _split(queue)
        now = self.pool(pool)
        curve = now.curves.get(lane)
        if curve is None or not (now.is_measured or by_settings):
            return None
        return int(curve.tokens_within(max_wait_s))

    def seconds_to_drain(self, queue: str, tokens: float) -> float | None:
        """Seconds until this many tokens have left the queue; None when no drain rate is known.

        While no slot is free, nothing leaves it before a job ends: those that began together end together.
        """
        pool, lane = _split(queue)
        now = self.pool(pool)
        until_s = now.curves[lane].seconds_until(tokens) if now.curves else None
        return until_s if until_s is None or now.free(lane) else max(until_s, now.next_end_s)

    def _read_outlook(self) -> Outlook:
        text = self._admission.outlook()
        return from_json(text) if text else {}

    def _read_pool(self, name: str) -> PoolForecast:
        queues = {lane: queue_name(name, lane) for lane in Lane}
        loads = self._admission.loads(list(queues.values()))
        by_lane = {lane: loads[queue] for lane, queue in queues.items()}
        standing = self._admission.standing(self._read_fleets)
        departed, fleet = standing.departed.get(name, 0), fleet_of(name, standing.fleets)
        rates = self._outlook.get().get(name, UNKNOWN)
        mean = _pool_mean_tokens(by_lane, rates)
        kept = self._kept_share(name, rates, by_lane[Lane.HIGH])
        flows = {lane: self._flow(queue, loads[queue], rates.lanes.get(lane), mean) for lane, queue in queues.items()}
        is_measured = rates.drain_tokens_per_s_per_slot is not None
        drain_tokens_per_s = (rates.drain_tokens_per_s_per_slot or 0.0) * fleet.slots
        if not is_measured:
            drain_tokens_per_s = self._believed_jobs_per_s(name, fleet) * mean
        curves, next_end_s = {}, 0.0
        if drain_tokens_per_s:
            run_s = mean * fleet.slots / drain_tokens_per_s
            next_end_s = 0.0 if fleet.ran_s is None else max(0.0, run_s - fleet.ran_s)
            curves = {lane: drain_curve(lane, flows, drain_tokens_per_s, kept) for lane in Lane}
        mean_tokens = {lane: flow.mean_tokens for lane, flow in flows.items()}
        kept_slots = round(fleet.slots * kept)
        drain = (is_measured, drain_tokens_per_s, curves)
        return PoolForecast(fleet, by_lane, mean_tokens, *drain, departed, kept_slots, next_end_s)

    def _kept_share(self, name: str, rates: PoolRates, high: Load) -> float:
        """The share of the pool's slots that its workers keep free for `high` now."""
        pool = self._settings.pools.get(name)
        if pool is None or not (rates.high_is_in_use or high.jobs):
            return 0.0
        return kept_share(pool.max_running, pool.kv_high_share)

    def _flow(self, queue: str, load: Load, rates: LaneRates | None, pool_mean_tokens: float) -> LaneFlow:
        pool, lane = _split(queue)
        arriving = rates.arrival_tokens_per_s if rates else 0.0
        mean_tokens = _mean_tokens(load, rates) or pool_mean_tokens
        return LaneFlow(self._settings.lane(lane, pool).takes, load.expected_tokens, arriving, mean_tokens)

    def _believed_jobs_per_s(self, name: str, fleet: Fleet) -> float:
        pool = self._settings.pools.get(name)
        return pool.drain_jobs_per_s * fleet.workers if pool else 0.0


@cache
def _split(queue: str) -> tuple[str, Lane]:
    pool, _, lane = queue.rpartition(".")
    return pool, Lane(lane)


def _mean_tokens(load: Load, rates: LaneRates | None) -> float | None:
    """The mean of a lane's waiting jobs, else of its recent arrivals; None without either."""
    if load.jobs:
        return max(1.0, load.expected_tokens / load.jobs)
    return rates.mean_tokens if rates else None


def _pool_mean_tokens(loads: Mapping[Lane, Load], rates: PoolRates) -> float:
    """The same over all lanes; 1 without either, which makes the forecast count jobs instead of tokens."""
    jobs = sum(load.jobs for load in loads.values())
    if jobs:
        return max(1.0, sum(load.expected_tokens for load in loads.values()) / jobs)
    return fmean(lane.mean_tokens for lane in rates.lanes.values()) if rates.lanes else 1.0
