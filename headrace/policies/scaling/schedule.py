"""The calendar of known peaks, and the policy `schedule`, which follows it alone."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from headrace.config import ScalingEvent, ScalingSettings
from headrace.domain.scaling import Action, Decision, DemandHistory, PoolHosts
from headrace.policies.scaling import reactive
from headrace.policies.scaling.bounds import clamped, hold, move, tokens_per_job
from headrace.policies.scaling.staffing import hosts_for

_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One time that an event takes place, from its start up to its end, in UTC."""

    event: ScalingEvent
    starts_at: datetime
    ends_at: datetime


def events_between(policy: ScalingSettings, start: datetime, end: datetime) -> list[ScalingEvent]:
    """The events of which any part is in this time, both ends included.

    An event that ends at `start` has no part in it.
    """
    return [event for event in policy.events if any(_occurrences(event, start, end))]


def occurrences_between(policy: ScalingSettings, start: datetime, end: datetime) -> list[Occurrence]:
    """Each time that an event takes place of which any part is in this time, by their starts."""
    found = (each for event in policy.events for each in _occurrences(event, start, end))
    return sorted(found, key=lambda each: (each.starts_at, each.event.name))


def tokens_per_s(event: ScalingEvent, history: DemandHistory) -> float | None:
    """The load that an event announces. None if it gives a number of hosts, or if the size of a job is unknown."""
    job_tokens = tokens_per_job(history)
    return event.jobs_per_s * job_tokens if event.jobs_per_s is not None and job_tokens is not None else None


def _occurrences(event: ScalingEvent, start: datetime, end: datetime) -> Iterator[Occurrence]:
    for starts_at, ends_at in _times(event, start, end):
        if starts_at <= end and ends_at > start:
            yield Occurrence(event, starts_at, ends_at)


def _times(event: ScalingEvent, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The starts and ends of an event on all days that may reach into this time."""
    if event.starts_at is not None and event.ends_at is not None:
        yield event.starts_at, event.ends_at
        return
    zone = ZoneInfo(event.zone)
    # From the day before, because an event may last until the next day.
    day, last = start.astimezone(zone).date() - _DAY, end.astimezone(zone).date()
    while day <= last:
        if _WEEKDAYS[day.weekday()] in event.weekdays:
            yield _on(event, day, zone)
        day += _DAY


def _on(event: ScalingEvent, day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The start and the end of a weekly event that starts on this day, in UTC."""
    assert event.from_time is not None
    assert event.to_time is not None
    last = day if event.to_time > event.from_time else day + _DAY
    # On the day that the clocks change, an hour may occur twice or not at all. The event then lasts as long as it can.
    return min(_utc(day, event.from_time, zone)), max(_utc(last, event.to_time, zone))


def _utc(day: date, at: time, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Both readings of a local time, in UTC. They differ only in an hour that occurs twice or not at all."""
    first, second = (datetime.combine(day, at, zone).replace(fold=fold).astimezone(UTC) for fold in (0, 1))
    return first, second


#: Hosts, and the name of the event that needs them.
Need = tuple[int, str]


def decide(history: DemandHistory, hosts: PoolHosts, policy: ScalingSettings, now: datetime) -> Decision:
    """Have each event's hosts ready when it starts, and the minimum outside of events.

    If an event gives a rate, and what a host or a job amounts to is unknown, `reactive` decides.
    """
    needs = event_needs(history, hosts, policy, now)
    known = [(need, name) for need, name in needs if need is not None]
    if len(known) < len(needs):
        wanted = reactive.decide(history, hosts, policy, now)
        why = "an event gives a rate, but a host's rate or a job's size is unknown"
        return at_least(known, replace(wanted, reason=f"{wanted.reason} ({why})"), hosts, policy)
    if not known:
        return _have(0, "no event is near", hosts, policy)
    return at_least(known, Decision(policy.min_hosts, Action.HOLD, ""), hosts, policy)


def at_least(needs: Sequence[Need], wanted: Decision, hosts: PoolHosts, policy: ScalingSettings) -> Decision:
    """What was wanted, or the hosts of the largest event if they are no fewer."""
    need, name = max(needs, default=(0, ""))
    if not needs or clamped(need, policy) < wanted.target:
        return wanted
    return _have(need, f"event '{name}' needs {need} hosts", hosts, policy)


def event_needs(
    history: DemandHistory, hosts: PoolHosts, policy: ScalingSettings, now: datetime
) -> list[tuple[int | None, str]]:
    """The hosts for each event that is on, or for which hosts must be ordered now, with its name; see `event_hosts`."""
    near = events_between(policy, now, now + timedelta(seconds=hosts.provision_s))
    return [(event_hosts(event, history, hosts, policy), event.name) for event in near]


def _have(need: int, why: str, hosts: PoolHosts, policy: ScalingSettings) -> Decision:
    target = clamped(need, policy)
    if target == hosts.count:
        return hold(hosts, f"{why}, and the pool has {target}")
    return move(hosts, target, f"{why}: {hosts.count} to {target} hosts", policy)


def event_hosts(event: ScalingEvent, history: DemandHistory, hosts: PoolHosts, policy: ScalingSettings) -> int | None:
    """The hosts that an event needs. None if they follow from a rate, and a host's rate or a job's size is unknown."""
    if event.hosts is not None:
        return event.hosts
    rate = tokens_per_s(event, history)
    if rate is None or not hosts.tokens_per_s:
        return None
    return math.ceil(hosts_for(rate, hosts, policy.staffing_beta))
