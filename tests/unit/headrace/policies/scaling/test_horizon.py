"""The next hours: what is expected, which hosts that needs, and what is not known."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace.config import ScalingEvent, ScalingSettings
from headrace.domain.scaling import DemandHistory, Moment, PoolHosts, Season
from headrace.policies.scaling.decisions import DecisionInputs, decide
from headrace.policies.scaling.horizon import REACH_S, STEP_S, Horizon, horizon

NOW = datetime(2026, 11, 30, 8, 0, tzinfo=UTC)
#: 100 tokens/s saturate one such host. It is ready 300 s after the decision before it: at the second point.
HOSTS = PoolHosts(4, tokens_per_s=100.0, slots_per_host=20.0, provision_s=270.0)
POLICY = ScalingSettings(policy="predictive", staffing_beta=0.0, min_hosts=1)
MORNING = {"name": "mornings", "weekdays": ["mon"], "from": "09:00", "to": "11:00", "zone": "UTC", "hosts": 9}
LAUNCH = {"name": "launch", "starts_at": "2026-11-30T11:00:00Z", "ends_at": "2026-11-30T13:00:00Z", "jobs_per_s": 20}


def at(ahead_s: float) -> datetime:
    return NOW + timedelta(seconds=ahead_s)


def offered(jobs: Sequence[int], **changes: Any) -> DemandHistory:
    """Jobs of each 30 s, oldest first, of 100 tokens each."""
    newest_first = list(enumerate(reversed(jobs)))
    moments = (Moment(at(-30 * i), 30.0, n, n * 100, 0, 0, 0, 0, 60, 80) for i, n in newest_first)
    return DemandHistory(tuple(moments), **changes)


#: 300 tokens/s.
STEADY = [90] * 20


def ahead(history: DemandHistory, policy: ScalingSettings = POLICY, hosts: PoolHosts = HOSTS) -> Horizon:
    return horizon(DecisionInputs(history, hosts, policy, NOW))


def rates(found: Horizon, *hours: float) -> list[float]:
    """The expected load after this number of hours, rounded."""
    by_time = {point.at: point.tokens_per_s for point in found.points}
    return [round(by_time[at(3600 * each)]) for each in hours]


def with_events(*events: dict[str, Any], **changes: Any) -> ScalingSettings:
    return POLICY.model_copy(update={"events": tuple(map(ScalingEvent.model_validate, events)), **changes})


def test_without_a_season_the_level_continues_and_that_is_said() -> None:
    found = ahead(offered(STEADY))
    assert [found.points[0].at, found.points[-1].at] == [NOW, at(REACH_S)]
    assert rates(found, 0, 1, 4) == [300, 300, 300]
    assert {(point.why, point.hosts) for point in found.points} == {("level", 4)}
    assert found.season_until is None
    assert found.unknown == ("No whole day of this kind was observed yet: the level continues.",)


@pytest.mark.parametrize(
    "history",
    [
        pytest.param(offered(STEADY), id="level"),
        pytest.param(offered(range(60, 120, 3)), id="trend"),
        pytest.param(offered([90] * 18 + [400] * 2), id="burst"),
        pytest.param(offered(STEADY, season=Season(600.0, (100.0, 300.0))), id="season"),
    ],
)
def test_when_a_new_host_is_ready_it_expects_what_the_decision_does(history: DemandHistory) -> None:
    decision = decide(history, HOSTS, POLICY, NOW)
    assert decision.forecast is not None
    point = ahead(history).points[1]
    assert (point.at, point.tokens_per_s, point.why) == (
        *(decision.forecast.at, decision.forecast.tokens_per_s, decision.forecast.why),
    )


def test_a_season_is_followed_to_its_end_and_its_end_is_said() -> None:
    season = Season(600.0, (100.0, *(100.0 + 25.0 * step for step in range(1, 13))))
    found = ahead(offered(STEADY, season=season))
    # Both rates of a ratio have 1 % of the highest one more.
    assert rates(found, 0, 1, 2, 4) == [300, 733, 1165, 1165]
    assert found.season_until == at(7200)
    assert [point.hosts for point in found.points[:: int(3600 / STEP_S)]] == [4, 9, 14, 14, 14]
    assert found.unknown == ()


def test_a_trend_is_followed_for_one_window_and_the_season_after_that() -> None:
    rise = range(60, 120, 3)
    found = ahead(offered(rise))
    ten_minutes = rates(found, 1 / 6)
    assert ten_minutes > rates(found, 0)
    assert rates(found, 1, 4) == ten_minutes * 2
    assert found.unknown[0].endswith("the level continues, after 10 minutes of its trend.")

    falling = Season(600.0, (200.0, 200.0, *([100.0] * 11)))
    found = ahead(offered(rise, season=falling))
    [near], [later] = rates(found, 1 / 6), rates(found, 1)
    assert later == pytest.approx(near * 102 / 202, abs=1)


def test_a_burst_ends() -> None:
    found = ahead(offered([90] * 18 + [400] * 2))
    whys = [point.why for point in found.points]
    assert whys[:3] == ["burst", "burst", "level"]
    assert found.points[0].tokens_per_s > 4 * 300


def test_events_are_named_and_their_load_and_their_hosts_expected() -> None:
    found = ahead(offered(STEADY), with_events(LAUNCH, MORNING))
    assert [(each.event.name, each.starts_at, each.ends_at) for each in found.events] == [
        ("mornings", at(3600), at(3 * 3600)),
        ("launch", at(3 * 3600), at(5 * 3600)),
    ]
    assert rates(found, 0.5, 2, 3.5) == [300, 300, 2000]
    hosts = {point.at: point.hosts for point in found.points}
    assert [hosts[at(3600 * each)] for each in (0.5, 2, 3.5)] == [4, 9, 20]
    # Those that take place now lie ahead too; those of the next day do not.
    late = replace(offered(STEADY), moments=())
    inputs = DecisionInputs(late, HOSTS, with_events(MORNING), at(2 * 3600))
    assert [each.starts_at for each in horizon(inputs).events] == [at(3600)]
    assert not horizon(replace(inputs, now=at(5 * 3600))).events


def test_without_a_fresh_observation_it_expects_nothing_and_says_why() -> None:
    for history, why in (
        (DemandHistory(), "the pool was never observed, or not lately"),
        (
            replace(offered(STEADY), moments=offered(STEADY).moments[5:]),
            "the newest sample is 150 s old, more than 60 s",
        ),
        (DemandHistory((Moment(NOW, 0.0, 3, 300, 0, 0, 0, 0, 0, 8),)), "no interval was observed yet"),
    ):
        found = ahead(history, with_events(MORNING))
        assert (found.points, found.unknown) == ((), (f"No load is expected or excluded: {why}.",))
        assert [each.event.name for each in found.events] == ["mornings"]


@pytest.mark.parametrize(
    ("hosts", "changes", "why"),
    [
        ({"tokens_per_s": None}, {}, "No hosts can be named ahead: the rate of a host is unknown."),
        ({"slots_per_host": None}, {}, "No hosts can be named ahead: the slots of a host are unknown."),
        (
            {},
            {"policy": "reactive"},
            "The policy 'reactive' goes by thresholds of the present: it names no hosts ahead.",
        ),
    ],
)
def test_hosts_that_cannot_be_named_are_not_guessed(hosts: dict[str, Any], changes: dict[str, Any], why: str) -> None:
    found = ahead(offered(STEADY), POLICY.model_copy(update=changes), replace(HOSTS, **hosts))
    assert rates(found, 0, 4) == [300, 300]
    assert {point.hosts for point in found.points} == {None}
    assert why in found.unknown


def test_other_policies_have_the_hosts_that_they_would_have() -> None:
    fixed = ahead(offered(STEADY), POLICY.model_copy(update={"policy": "fixed", "fixed_hosts": 7}))
    assert {point.hosts for point in fixed.points} == {7}
    schedule = ahead(offered(STEADY), with_events(MORNING, policy="schedule"))
    assert [schedule.points[int(3600 * each / STEP_S)].hosts for each in (0.5, 2, 3.5)] == [1, 9, 1]


def test_an_event_with_a_rate_needs_the_size_of_a_job() -> None:
    idle = offered([0] * 20)
    found = ahead(idle, with_events(LAUNCH))
    assert "Event 'launch' gives a rate of jobs, and the size of a job is unknown." in found.unknown
    assert rates(ahead(replace(idle, tokens_per_job=50.0), with_events(LAUNCH)), 3.5) == [1000]


def test_any_load_needs_a_host_unless_the_paid_api_is_cheaper() -> None:
    policy = POLICY.model_copy(update={"min_hosts": 0})
    little = offered([0] * 19 + [1])
    assert ahead(little, policy).points[0].hosts == 1
    assert ahead(offered([0] * 20), policy).points[0].hosts == 0
    cheap = replace(HOSTS, usd_per_hour=4.0, spill_usd=0.000001)
    assert ahead(little, policy, cheap).points[0].hosts == 0
