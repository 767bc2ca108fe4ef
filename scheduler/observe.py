"""Observe: sample every queue. Knows neither Celery nor what the samples are for."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import fmean
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from headrace.domain.fleet import AlikeJobs, EndedJobs, Fleet, QueueActivity, QueueSample
from headrace.domain.hosts import HostCounts
from headrace.domain.places import Load
from headrace.domain.queues import OVERFLOW, Lane, Overflow, Route, lane_queues, parts_of, wanted_queue
from headrace.domain.states import JobState
from headrace.policies.answers import ExpectedOutputs
from headrace.policies.forecasting import UNKNOWN, LaneRates, Outlook, PoolRates, to_json
from headrace.policies.lanes import HIGH_LATELY_S, kept_share
from headrace.policies.routing import route_of
from headrace.policies.scaling.discount import SERVED_WINDOWS, counted_shares
from headrace.store import clock, locks
from headrace.store.cache import cache_figures
from headrace.store.fleet import history, observations, workers
from headrace.store.money import costs
from scheduler.deps import BOUNDS_S, ControlDeps

IDLE = QueueActivity()

#: The age up to which samples count for a pool's drain rate, and the half-life of their weight, in seconds.
WINDOW_S = 120.0
HALF_LIFE_S = 30.0


def observe(deps: ControlDeps) -> int:
    """Sample every queue, and publish how fast each pool drains. Of several concurrent runs, one takes the samples.

    Without Redis the depths are unknown, so no sample is written: readers must check how old the samples are.
    Returns: samples written.
    Raises: LockHeld: another process takes them. BrokerUnavailable, StoreUnavailable.
    """
    loads = deps.admission.loads(deps.queues)
    every = timedelta(seconds=deps.settings.observe_every_s)
    with deps.store.begin() as db:
        locks.take(db, "observe")
        at = clock.settled(db)
        last = observations.last_sample_at(db, at)
        if last is not None and at - last < every / 2:
            return 0
        outputs = workers.expected_outputs(db)
        span = (last or at - every, at)
        flows, activity = _flows(db, deps, span, outputs), observations.activity(db, deps.queues, *span)
        waits, ends = history.waits(db, *span, BOUNDS_S), history.ends(db, *span, BOUNDS_S)
        fleets, hosts = workers.fleets(db), workers.count_hosts(db)
        served, charged = cache_figures.served(db, *span), costs.charged(db, *span)
        ended = _ended(ends)
        samples = [
            replace(
                _sample(queue, at, loads[queue], fleets.get(pool), hosts.get(pool, HostCounts())),
                **asdict(activity.get(queue, IDLE)),
                **flows[queue],
                **ended.get(queue, {}),
            )
            for pool in (*deps.settings.own_pools, OVERFLOW)
            for queue in lane_queues(pool)
        ]
        observations.add_samples(db, samples)
        since = at - timedelta(seconds=WINDOW_S)
        window, run_times = observations.recent_samples(db, deps.queues, since), _run_times(db, deps, since)
    deps.tallies.note_observed(samples, waits, ends)
    deps.tallies.note_served(served)
    deps.tallies.note_charged(charged)
    deps.admission.publish_outlook(to_json(_told(deps, window, outputs, run_times)), WINDOW_S)
    return len(samples)


def _run_times(db: Connection, deps: ControlDeps, since: datetime) -> dict[str, float]:
    """Seconds for each token of an answer, of the pools that have a latency goal and answered a job lately."""
    with_goals = (name for name, pool in deps.settings.pools.items() if pool.latency_goal_s is not None)
    found = {name: history.run_s_per_token(db, name, since) for name in with_goals}
    return {name: seconds for name, seconds in found.items() if seconds is not None}


def _told(
    deps: ControlDeps,
    window: Iterable[QueueSample],
    outputs: Mapping[str, ExpectedOutputs],
    run_times: Mapping[str, float],
) -> Outlook:
    """What the API processes learn of each pool. Leaves out pools of which nothing is known."""
    kept = {name: kept_share(pool.max_running, pool.kv_high_share) for name, pool in deps.settings.pools.items()}
    learned = outlook(window, kept)
    return {
        pool: replace(learned.get(pool, UNKNOWN), outputs=outputs.get(pool, {}), run_s_per_token=run_times.get(pool))
        for pool in learned.keys() | outputs.keys() | run_times.keys()
    }


def _flows(
    db: Connection, deps: ControlDeps, span: tuple[datetime, datetime], outputs: Mapping[str, ExpectedOutputs]
) -> Mapping[str, Mapping[str, Any]]:
    """By queue and name, the counts of a sample: jobs that came and went within `span`, and their expected tokens."""
    flows: dict[str, Counter[str]] = defaultdict(Counter)
    paid_pools = deps.settings.paid_pools

    def wanted(jobs: AlikeJobs) -> str:
        return wanted_queue(jobs.pool, Lane(jobs.lane), Overflow(jobs.overflow), paid_pools)

    for jobs in observations.accepted(db, deps.queues, *span):
        flows[jobs.queue]["arrivals"] += jobs.jobs
        flows[wanted(jobs)].update(offered=jobs.jobs, offered_tokens=_expected_tokens(jobs, outputs))
    for queue, counts in _refused(db, deps, span):
        flows[queue].update(counts)
    for jobs in observations.spilled(db, *span):
        if route_of(wanted(jobs)) is Route.POOL:
            flows[wanted(jobs)]["spilled"] += jobs.jobs
    for jobs in observations.started(db, *span):
        flows[jobs.queue].update(started=jobs.jobs, started_tokens=_expected_tokens(jobs, outputs))
    return flows


def _refused(
    db: Connection, deps: ControlDeps, span: tuple[datetime, datetime]
) -> Iterator[tuple[str, Mapping[str, int]]]:
    """The counts of a sample, by queue, of the refused jobs that no sample has counted yet."""
    refused = observations.take_refused(db, span[0])
    new: dict[str, Counter[UUID]] = defaultdict(Counter)
    for each in refused:
        if not each.is_repeat:
            new[parts_of(each.queue)[0]][each.app_id] += each.tokens
    shares = _counted_shares(db, deps, new, (span[1] - span[0]).total_seconds()) if new else {}
    for each in refused:
        pool, _ = parts_of(each.queue)
        share = 0.0 if each.is_repeat else shares.get(pool, {}).get(each.app_id, 1.0)
        jobs, tokens = round(share * each.jobs), round(share * each.tokens)
        counted = {"offered": jobs, "offered_tokens": tokens, "refused": jobs}
        yield each.queue, counted | {"discounted": each.jobs - jobs, "discounted_tokens": each.tokens - tokens}


def _counted_shares(
    db: Connection, deps: ControlDeps, refused: Mapping[str, Mapping[UUID, int]], seconds: float
) -> dict[str, dict[UUID, float]]:
    """By pool and app, the share of refused tokens that counts as demand. A pool that has no hosts is absent."""
    scaling = deps.settings.scaling
    window = timedelta(seconds=scaling.window_s)
    served = observations.served_rates(db, SERVED_WINDOWS * window, window)
    # What was refused within a second may be written in one go with that of the seconds before.
    seconds = max(seconds, observations.REFUSALS_EVERY_S)
    return {
        pool: counted_shares(refused[pool], served.get(pool, {}), seconds, scaling.refused_multiple)
        for pool in refused.keys() & set(deps.settings.own_pools)
    }


def _ended(ends: Iterable[EndedJobs]) -> Mapping[str, Mapping[str, Any]]:
    """By queue and name, the counts of a sample: the jobs that ended, and how many of them failed or expired."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for each in ends:
        counts[each.queue]["ended"] += each.jobs
        if each.state in (JobState.FAILED, JobState.EXPIRED):
            counts[each.queue][each.state] += each.jobs
    return counts


def _expected_tokens(jobs: AlikeJobs, outputs: Mapping[str, ExpectedOutputs]) -> int:
    """What these jobs will likely use, as admission counts it."""
    rates = PoolRates(None, outputs=outputs.get(jobs.pool, {}))
    return jobs.prompt_tokens + jobs.jobs * rates.expected_tokens(Lane(jobs.lane), 0, jobs.max_tokens, jobs.n)


def outlook(samples: Iterable[QueueSample], kept: Mapping[str, float]) -> Outlook:
    """How fast each pool drains, and what arrives in its lanes. A pool with fewer than two samples is absent.

    Args:
        samples: in the order they were taken.
        kept: the share of each pool's slots that is kept free while `high` is in use and has no queue.
    """
    pools: dict[str, dict[datetime, dict[Lane, QueueSample]]] = defaultdict(lambda: defaultdict(dict))
    for sample in samples:
        pool, _, lane = sample.queue.rpartition(".")
        pools[pool][sample.at][Lane(lane)] = sample
    seen = {pool: list(moments.values()) for pool, moments in pools.items() if len(moments) > 1}
    return {pool: _pool_rates(moments, kept.get(pool, 0.0)) for pool, moments in seen.items()}


def _pool_rates(moments: Sequence[dict[Lane, QueueSample]], kept: float) -> PoolRates:
    """Weighted rates of one pool: a sample counts half as much as one that is `HALF_LIFE_S` younger."""
    newest = _at(moments[-1])
    drained = slot_s = seconds = 0.0
    started: dict[Lane, float] = defaultdict(float)
    tokens: dict[Lane, float] = defaultdict(float)
    arrivals: dict[Lane, float] = defaultdict(float)
    usable = _usable_slots(moments, kept)
    for (before, after), slots in zip(pairwise(moments), pairwise(usable), strict=True):
        weight = 0.5 ** ((newest - _at(after)).total_seconds() / HALF_LIFE_S)
        step_s = (_at(after) - _at(before)).total_seconds()
        seconds += weight * step_s
        # Only the time between two samples that both saw jobs waiting. Without a queue, a pool starts as many jobs as
        # arrive, which says nothing about how many it could start.
        if _backed_up(before) and _backed_up(after):
            drained += weight * _drained_tokens(before, after)
            slot_s += weight * step_s * fmean(slots)
        for lane, sample in after.items():
            started[lane] += weight * sample.started
            tokens[lane] += weight * sample.started_tokens
            arrivals[lane] += weight * sample.arrivals
    means = {lane: tokens[lane] / started[lane] for lane in started if started[lane]}
    lanes = {lane: LaneRates(arrivals[lane] / seconds * mean, mean) for lane, mean in means.items()}
    return PoolRates(drained / slot_s if drained and slot_s else None, lanes, _high_is_in_use(moments)[-1])


def _high_is_in_use(moments: Sequence[dict[Lane, QueueSample]]) -> list[bool]:
    """For each moment, whether `high` had a job so lately that slots were kept for the next one."""
    until, in_use = datetime.min.replace(tzinfo=UTC), []
    for moment in moments:
        if (high := moment.get(Lane.HIGH)) and (high.depth or high.started):
            until = high.at + timedelta(seconds=HIGH_LATELY_S)
        in_use.append(_at(moment) < until)
    return in_use


def _at(moment: dict[Lane, QueueSample]) -> datetime:
    return next(iter(moment.values())).at


def _backed_up(moment: dict[Lane, QueueSample]) -> bool:
    return any(sample.depth for sample in moment.values())


def _drained_tokens(before: dict[Lane, QueueSample], after: dict[Lane, QueueSample]) -> float:
    """Tokens started between two samples, less those that filled empty slots: a new worker takes many jobs at once."""
    started = sum(sample.started for sample in after.values())
    tokens = sum(sample.started_tokens for sample in after.values())
    filled = sum(sample.running for sample in after.values()) - sum(sample.running for sample in before.values())
    return tokens - filled * tokens / started if started else float(tokens)


def _usable_slots(moments: Sequence[dict[Lane, QueueSample]], kept: float) -> list[float]:
    """For each moment, the slots without the kept ones, which `high` fills only while it has a queue."""
    return [
        # Not a sum: the sample of each lane reports all slots of the pool.
        max(sample.slots for sample in moment.values()) * (1.0 - kept * (in_use and not moment[Lane.HIGH].depth))
        for moment, in_use in zip(moments, _high_is_in_use(moments), strict=True)
    ]


def _sample(queue: str, at: datetime, load: Load, fleet: Fleet | None, hosts: HostCounts) -> QueueSample:
    """How the queue and its pool stand, without the counts."""
    return QueueSample(
        queue=queue,
        at=at,
        depth=load.jobs,
        depth_tokens=load.expected_tokens,
        slots=fleet.slots if fleet else 0,
        hosts=hosts.ready,
        hosts_requested=hosts.requested,
        hosts_draining=hosts.draining,
        kv_use=fleet.kv_use if fleet else None,
    )
