"""The policies that follow a plan: `schedule`, with its calendar across time zones, and `fixed`."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace.config import ScalingEvent, ScalingSettings
from headrace.domain.scaling import Action, DemandHistory, Moment, PoolHosts
from headrace.policies.scaling.decisions import decide
from headrace.policies.scaling.schedule import events_between

PEAK = {"name": "peak", "weekdays": ["mon"], "from": "09:00", "to": "11:00", "zone": "Europe/Berlin", "hosts": 6}
LAUNCH = {"name": "launch", "starts_at": "2026-12-01T09:00:00+01:00", "ends_at": "2026-12-01T12:00:00Z", "hosts": 9}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def counts(event: dict[str, Any], now: datetime, lead_s: float = 0.0) -> bool:
    policy = ScalingSettings(events=(ScalingEvent.model_validate(event),))
    return bool(events_between(policy, now, now + timedelta(seconds=lead_s)))


def weekly(day: str, start: str, end: str, zone: str = "Europe/Berlin") -> dict[str, Any]:
    return {"name": "weekly", "weekdays": [day], "from": start, "to": end, "zone": zone, "hosts": 6}


@pytest.mark.parametrize(
    ("event", "edges"),
    [
        pytest.param(PEAK, ("2026-11-30T08:00", "2026-11-30T10:00"), id="Berlin in winter"),
        pytest.param(PEAK, ("2026-07-06T07:00", "2026-07-06T09:00"), id="Berlin in summer"),
        pytest.param(
            weekly("mon", "01:00", "02:00", "Pacific/Auckland"),
            ("2026-11-29T12:00", "2026-11-29T13:00"),
            id="Sunday in UTC",
        ),
        pytest.param(weekly("sun", "23:00", "02:00"), ("2026-11-29T22:00", "2026-11-30T01:00"), id="past midnight"),
        pytest.param(weekly("sun", "10:00", "10:00"), ("2026-11-29T09:00", "2026-11-30T09:00"), id="a whole day"),
        pytest.param(
            weekly("sat", "22:00", "04:00"), ("2026-03-28T21:00", "2026-03-29T02:00"), id="a night that is short"
        ),
        pytest.param(
            weekly("sat", "22:00", "04:00"), ("2026-10-24T20:00", "2026-10-25T03:00"), id="a night that is long"
        ),
        pytest.param(
            weekly("sun", "02:30", "02:45"), ("2026-03-29T00:30", "2026-03-29T01:45"), id="an hour that is missing"
        ),
        pytest.param(
            weekly("sun", "02:30", "02:45"), ("2026-10-25T00:30", "2026-10-25T01:45"), id="an hour that occurs twice"
        ),
        pytest.param(LAUNCH, ("2026-12-01T08:00", "2026-12-01T12:00"), id="once"),
    ],
)
def test_an_event_lasts_from_its_start_to_its_end(event: dict[str, Any], edges: tuple[str, str]) -> None:
    start, end = map(at, edges)
    second = timedelta(seconds=1)
    assert [counts(event, now) for now in (start - second, start, end - second, end)] == [False, True, True, False]
    assert counts(event, start - timedelta(seconds=300), 300)
    assert not counts(event, start - timedelta(seconds=301), 300)


def schedule(*events: dict[str, Any], **changes: Any) -> ScalingSettings:
    return ScalingSettings(policy="schedule", events=tuple(map(ScalingEvent.model_validate, events)), **changes)


def seen(now: datetime, jobs: int = 10, tokens: int = 5_000, running: int = 10) -> DemandHistory:
    return DemandHistory((Moment(now, 5.0, jobs, tokens, 0, 0, 0, 0, running, 40),))


START = at("2026-11-30T08:00")
LEAD = timedelta(seconds=300)


@pytest.mark.parametrize(
    ("now", "ready", "target", "reason"),
    [
        (START - LEAD, 2, 6, "up: event 'peak' needs 6 hosts: 2 to 6 hosts"),
        (START - LEAD - timedelta(seconds=1), 2, 2, "hold: no event is near, and the pool has 2"),
        (START, 6, 6, "hold: event 'peak' needs 6 hosts, and the pool has 6"),
        (START + timedelta(hours=2), 6, 2, "down: no event is near: 6 to 2 hosts"),
    ],
)
def test_hosts_are_ready_when_the_event_starts_and_gone_after_it(
    now: datetime, ready: int, target: int, reason: str
) -> None:
    decision = decide(seen(now), PoolHosts(ready), schedule(PEAK), now)
    assert (decision.target, decision.reason) == (target, reason)


def test_of_several_events_the_largest_counts() -> None:
    larger = {**PEAK, "name": "larger", "hosts": 8}
    assert decide(seen(START), PoolHosts(2), schedule(larger, PEAK, PEAK), START).target == 8
    assert decide(seen(START), PoolHosts(2), schedule(larger, PEAK, max_hosts=5), START).target == 5


BY_RATE = {key: value for key, value in PEAK.items() if key != "hosts"} | {"jobs_per_s": 8}


@pytest.mark.parametrize(
    ("history", "hosts", "target"),
    [
        # 8 jobs/s of 500 tokens on hosts of 1,000 tokens/s keep 80 slots busy: 80 + sqrt(80) / 2 slots are 4.2 hosts.
        pytest.param(seen(START), PoolHosts(2, tokens_per_s=1000, slots_per_host=20), 5, id="measured"),
        pytest.param(seen(START), PoolHosts(2, tokens_per_s=1000), 4, id="slots unknown: no margin"),
        pytest.param(
            DemandHistory(seen(START, 0, 0).moments, tokens_per_job=1_000),
            PoolHosts(2, tokens_per_s=1000, slots_per_host=20),
            9,
            id="a size from earlier days",
        ),
    ],
)
def test_a_rate_becomes_hosts_through_what_was_measured(history: DemandHistory, hosts: PoolHosts, target: int) -> None:
    assert decide(history, hosts, schedule(BY_RATE), START).target == target


@pytest.mark.parametrize(
    ("history", "hosts"),
    [(seen(START, running=39), PoolHosts(2)), (seen(START, 0, 0, 39), PoolHosts(2, tokens_per_s=9))],
)
def test_where_nothing_was_measured_the_thresholds_decide(history: DemandHistory, hosts: PoolHosts) -> None:
    decision = decide(history, hosts, schedule(BY_RATE), START)
    assert (decision.target, decision.action) == (4, Action.UP)
    assert decision.reason.startswith("up: load 0.97 is above 0.80 (an event gives a rate, but")


@pytest.mark.parametrize("policy", [schedule(), ScalingSettings(policy="fixed", fixed_hosts=3)])
def test_a_plan_needs_fresh_samples_only_to_remove_hosts(policy: ScalingSettings) -> None:
    stale = seen(START - timedelta(seconds=61))
    decision = decide(stale, PoolHosts(5), policy, START)
    assert (decision.target, decision.reason) == (5, "hold: the newest sample is 61 s old, more than 60 s")
    assert decide(stale, PoolHosts(1), policy, START).target >= 2


@pytest.mark.parametrize(
    ("changes", "ready", "target"),
    [
        ({}, 5, 2),
        ({"fixed_hosts": 4}, 5, 4),
        ({"fixed_hosts": 4}, 1, 4),
        ({"fixed_hosts": 0}, 5, 2),
        ({"fixed_hosts": 99}, 5, 20),
    ],
)
def test_fixed_keeps_its_number_within_the_bounds(changes: dict[str, Any], ready: int, target: int) -> None:
    assert decide(seen(START), PoolHosts(ready), ScalingSettings(policy="fixed", **changes), START).target == target
