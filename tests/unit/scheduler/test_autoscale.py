"""How the samples of a pool's lanes become the moments that the policy sees."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from headrace.domain.fleet import QueueSample
from headrace.domain.scaling import Moment
from scheduler.autoscale import moments_of

AT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
HIGH = QueueSample(
    queue="chat.high",
    at=AT,
    depth=3,
    oldest_wait_s=0.0,
    arrivals=8,
    refused=2,
    started=0,
    running=5,
    slots=32,
    hosts=1,
    depth_tokens=300,
    offered=11,
    offered_tokens=1100,
    spilled=1,
)


def test_lanes_are_added_up_and_the_pools_slots_are_counted_once() -> None:
    low = replace(HIGH, queue="chat.low", depth=4, running=6)
    assert moments_of([HIGH, low], 5.0) == (Moment(AT, 5.0, 22, 2200, 4, 2, 7, 600, 11, 32),)


def test_a_moment_is_as_long_as_the_time_since_the_one_before() -> None:
    late = replace(HIGH, at=AT + timedelta(seconds=12))
    assert [(moment.at, moment.seconds) for moment in moments_of([late, HIGH], 5.0)] == [(AT, 5.0), (late.at, 12.0)]


def test_a_pool_without_samples_has_no_moments() -> None:
    assert moments_of([], 5.0) == ()
