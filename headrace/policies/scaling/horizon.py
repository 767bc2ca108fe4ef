"""The next hours as operators see them: the expected load, the hosts that it needs, and the events that lie ahead.

It goes by the inputs of a decision and changes none. A decision looks ahead only until a new host would be ready.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from headrace.domain.scaling import DemandHistory, PoolHosts
from headrace.policies.scaling.bounds import clamped, in_order, observed_s, staleness, tokens_per_job
from headrace.policies.scaling.decisions import DecisionInputs
from headrace.policies.scaling.forecast import expected_in_burst, ratio
from headrace.policies.scaling.predictive import View, lacking_of, whole
from headrace.policies.scaling.schedule import Occurrence, event_hosts, occurrences_between

#: How far ahead, and in which steps.
REACH_S, STEP_S = 14_400.0, 300.0


@dataclass(frozen=True, slots=True)
class Point:
    """A moment ahead.

    Attributes:
        tokens_per_s: the expected load.
        why: what it follows from: `level`, `trend`, `season`, `burst`, or the name of an event.
        hosts: what the policy would have then, within its limits; None if it cannot be named.
    """

    at: datetime
    tokens_per_s: float
    why: str
    hosts: int | None


@dataclass(frozen=True, slots=True)
class Horizon:
    """What is expected.

    Attributes:
        points: oldest first; empty if nothing is known of the load.
        events: those that lie ahead or take place now, by their starts.
        season_until: until when past days tell how the load goes on; None if they do not.
        unknown: what the forecast lacks, a sentence each.
    """

    points: tuple[Point, ...]
    events: tuple[Occurrence, ...]
    season_until: datetime | None
    unknown: tuple[str, ...]


def horizon(inputs: DecisionInputs, reach_s: float = REACH_S) -> Horizon:
    """What a pool may expect from the time of a decision on, by what this decision knew."""
    history, policy, now = in_order(inputs.history), inputs.policy, inputs.now
    events = tuple(occurrences_between(policy, now, now + timedelta(seconds=reach_s)))
    blind = staleness(history, policy, now)
    if not blind and observed_s(history, policy) <= 0:
        blind = "no interval was observed yet"
    if blind:
        return Horizon((), events, None, (f"No load is expected or excluded: {blind}.",))
    season_until = None
    if history.season is not None:
        season_until = now + timedelta(seconds=history.season.step_s * (len(history.season.rates) - 1))
    view = View.of(history, inputs.hosts, policy, now)
    hosts_unknown = _hosts_unknown(history, inputs.hosts, view)
    steps = range(int(reach_s / STEP_S) + 1)
    points = tuple(_point(view, step * STEP_S, names_hosts=not hosts_unknown) for step in steps)
    unknown = (_season_unknown(view), hosts_unknown, *_sizes_unknown(history, events))
    return Horizon(points, events, season_until, tuple(filter(None, unknown)))


def _point(view: View, ahead_s: float, *, names_hosts: bool) -> Point:
    at = view.now + timedelta(seconds=ahead_s)
    calm, why = _calm(view, ahead_s)
    loads, burst = [(calm, why), *view.event_rates(ahead_s)], 0.0
    if view.demand.burst_until is not None and at <= view.demand.burst_until:
        burst = expected_in_burst(view.demand, ahead_s)
        loads.append((burst, "burst"))
    rate, why = max(loads)
    return Point(at, rate, why, _hosts(view, at, calm, burst) if names_hosts else None)


def _calm(view: View, ahead_s: float) -> tuple[float, str]:
    """The load apart from bursts and events.

    A trend is followed for one window, and only the season after that: no trend of minutes goes on for hours.
    """
    near_s = min(ahead_s, view.policy.window_s)
    rate, why = view.calm(near_s)
    season = view.history.season
    if season is None or ahead_s <= near_s:
        return rate, why
    return rate * ratio(season, ahead_s) / ratio(season, near_s), "season"


def _hosts(view: View, at: datetime, calm: float, burst: float) -> int:
    """The hosts that the policy would have at a time, without a backlog."""
    policy = view.policy
    events = [each.event for each in occurrences_between(policy, at, at)]
    match policy.policy:
        case "fixed":
            return clamped(policy.min_hosts if policy.fixed_hosts is None else policy.fixed_hosts, policy)
        case "schedule":
            found = (event_hosts(event, view.history, view.hosts, policy) or 0 for event in events)
            return clamped(max(found, default=0), policy)
        case _:
            for_load = max(view.with_margin(calm, is_burst=False), view.with_margin(burst, is_burst=True))
            for_events = max((view.for_event(event) for event in events), default=0)
            # Without a paid API, any job at all needs a host.
            least = 1 if view.worth.hosts_pay and view.worth.spilling is None and max(calm, burst) > 0 else 0
            return clamped(max(whole(for_load), for_events, least), policy)


def _season_unknown(view: View) -> str:
    if view.history.season is not None:
        return ""
    trend = f", after {view.policy.window_s / 60:.0f} minutes of its trend" if view.demand.slope else ""
    return f"No whole day of this kind was observed yet: the level continues{trend}."


def _hosts_unknown(history: DemandHistory, hosts: PoolHosts, view: View) -> str:
    match view.policy.policy:
        case "reactive":
            return "The policy 'reactive' goes by thresholds of the present: it names no hosts ahead."
        case "predictive":
            lacking = lacking_of(history, hosts, view.policy)
            return f"No hosts can be named ahead: {lacking}." if lacking else ""
        case _:
            return ""


def _sizes_unknown(history: DemandHistory, events: tuple[Occurrence, ...]) -> list[str]:
    if tokens_per_job(history) is not None:
        return []
    names = sorted({each.event.name for each in events if each.event.jobs_per_s is not None})
    return [f"Event '{name}' gives a rate of jobs, and the size of a job is unknown." for name in names]
