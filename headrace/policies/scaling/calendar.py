"""The calendar of known peaks: which events count at a moment."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from headrace.config import ScalingEvent, ScalingSettings
from headrace.domain.scaling import History
from headrace.policies.scaling.recent import tokens_per_job

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


def tokens_per_s(event: ScalingEvent, history: History) -> float | None:
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
