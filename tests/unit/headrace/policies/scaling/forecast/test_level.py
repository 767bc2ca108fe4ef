"""The level, the trend and the burst that observations show, and the forecast that follows."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import ScalingSettings
from headrace.domain.scaling import History, Moment, Season
from headrace.policies.scaling.forecast.level import Demand, demand_of
from headrace.policies.scaling.forecast.outlook import expected, expected_in_burst

NOW = datetime(2026, 11, 30, 8, 0, tzinfo=UTC)
JOB_TOKENS = 100


def offered(jobs: Sequence[int], every_s: float = 30.0) -> History:
    """Jobs of each interval, oldest first. 30 jobs of 100 tokens in 30 s are 100 tokens/s."""
    newest_first = enumerate(reversed(jobs))
    return History(
        tuple(
            Moment(NOW - timedelta(seconds=every_s * i), every_s, n, n * JOB_TOKENS, 0, 0, 0, 0, 0, 40)
            for i, n in reversed(list(newest_first))
        )
    )


def seen(jobs: Sequence[int], every_s: float = 30.0, window_s: float = 600.0) -> Demand:
    return demand_of(offered(jobs, every_s), JOB_TOKENS, ScalingSettings(window_s=window_s), NOW)


def test_more_jobs_in_the_first_half_of_the_last_minute_end_no_trend() -> None:
    assert seen([30, 31, 32, 33, 34, 35, 36]).slope > 0
    assert seen([30, 31, 32, 33, 34, 40, 36]).slope > 0


@pytest.mark.parametrize(
    ("jobs", "level", "slope"),
    [
        pytest.param([30] * 20, 100.0, 0.0, id="level"),
        pytest.param([30, 33] * 10, 105.0, 0.0, id="noise is no trend"),
        # 1 job more every 30 s: 1/9 tokens/s more each second.
        pytest.param(list(range(30, 50)), 490 / 3, 1 / 9, id="a ramp ends above the mean of its last minutes"),
        pytest.param(list(range(49, 29, -1)), 100.0, -1 / 9, id="a ramp down"),
        pytest.param([30, 31, 32, 33, 34], 320 / 3, 0.0, id="five bins show no trend"),
        pytest.param([0] * 19 + [600], 250.0, 0.0, id="one high minute is no trend"),
    ],
)
def test_the_level_is_the_mean_of_four_minutes_or_the_end_of_a_trend(
    jobs: list[int], level: float, slope: float
) -> None:
    demand = seen(jobs)
    assert demand.level == pytest.approx(level)
    assert demand.slope == pytest.approx(slope)


@pytest.mark.parametrize(
    ("jobs", "bursts"),
    [
        ([30] * 20, False),
        ([30] * 18 + [45, 45], False),
        # 1.5 x 100 + 3 x sqrt(2 x 100 x 100 / 60) = 204.8 tokens/s, which is 61.4 jobs in 30 s.
        ([30] * 18 + [61, 61], False),
        ([30] * 18 + [62, 62], True),
        ([30] * 18 + [0, 124], True),
        ([0] * 18 + [0, 1], True),
        ([30] * 16 + [300, 300, 30, 30], False),
        ([30, 300], False),
    ],
)
def test_a_burst_is_a_last_minute_far_above_the_minutes_before(jobs: list[int], bursts: bool) -> None:
    assert seen(jobs).burst_until == (NOW + timedelta(seconds=300) if bursts else None)


@pytest.mark.parametrize(("until_s", "counts"), [(1, True), (0, False), (-1, False)])
def test_a_burst_of_an_earlier_decision_counts_until_its_end(until_s: int, counts: bool) -> None:
    until = NOW + timedelta(seconds=until_s)
    history = History(offered([30] * 20).moments, burst_until=until)
    assert demand_of(history, JOB_TOKENS, ScalingSettings(), NOW).burst_until == (until if counts else None)


def test_times_are_shares_of_the_window() -> None:
    jobs = [30] * 18 + [62, 62]
    slow, fast = seen(jobs), seen([n * 10 for n in jobs], every_s=1.0, window_s=20.0)
    assert fast.level == pytest.approx(300 * slow.level)
    assert fast.burst_until == NOW + timedelta(seconds=10)


def test_shorter_intervals_are_added_up() -> None:
    assert seen([5] * 120, every_s=5.0) == seen([30] * 20)


SEASON = Season(600.0, (100.0, 200.0, 50.0, 10_000.0))


@pytest.mark.parametrize(
    ("demand", "season", "ahead_s", "rate", "why"),
    [
        pytest.param((100.0, 0.0), None, 600, 100.0, "level", id="level"),
        pytest.param((100.0, 0.1), None, 600, 160.0, "trend", id="a rise goes on"),
        pytest.param((100.0, 9.0), None, 600, 400.0, "trend", id="up to four times the level"),
        pytest.param((100.0, -0.1), None, 600, 70.0, "trend", id="a fall goes half of the way"),
        pytest.param((100.0, -9.0), None, 600, 50.0, "trend", id="and never below nothing"),
        pytest.param((80.0, 0.0), SEASON, 600, 80 * 300 / 200, "season", id="the season's ratio"),
        pytest.param((80.0, 0.0), SEASON, 300, 80 * 250 / 200, "season", id="half a step"),
        pytest.param((80.0, 0.0), SEASON, 1200, 80 * 150 / 200, "season", id="a fall of the season"),
        pytest.param((80.0, 0.0), SEASON, 1800, 320.0, "season", id="at most four times"),
        pytest.param((80.0, 0.0), SEASON, 9000, 320.0, "season", id="beyond the last step"),
        pytest.param((80.0, -0.1), SEASON, 600, 120.0, "season", id="a fall does not count beside a season"),
        pytest.param((80.0, 0.2), SEASON, 600, 160.0, "season and trend", id="half of a rise beyond the season"),
        pytest.param((80.0, 0.05), SEASON, 600, 120.0, "season", id="a rise within the season"),
        pytest.param((80.0, 0.0), Season(600.0, (0.0, 0.0)), 600, 80.0, "season", id="an empty season"),
    ],
)
def test_the_forecast_follows_the_season_or_else_the_trend(
    demand: tuple[float, float], season: Season | None, ahead_s: float, rate: float, why: str
) -> None:
    level, slope = demand
    found = expected(Demand(level, slope, level, None), season, ahead_s)
    assert found == (pytest.approx(rate), why)


def test_a_burst_goes_on_and_does_not_fall() -> None:
    assert expected_in_burst(Demand(100.0, 0.5, 300.0, NOW), 300) == 450.0
    assert expected_in_burst(Demand(100.0, -0.5, 300.0, NOW), 300) == 300.0
    assert expected_in_burst(Demand(100.0, 9.0, 300.0, NOW), 300) == 1200.0


@given(
    st.integers(0, 200),
    st.integers(-12, 12),
    st.lists(st.integers(-20, 20), min_size=20, max_size=20),
    st.tuples(st.integers(0, 40), st.integers(0, 40)),
    st.none() | st.just(SEASON),
    st.sampled_from([0.0, 330.0, 900.0]),
)
def test_more_jobs_in_the_last_minute_never_lower_the_forecast(
    base: int, slope: int, noise: list[int], more: tuple[int, int], season: Season | None, ahead_s: float
) -> None:
    jobs = [max(0, base + slope * i + wobble) for i, wobble in enumerate(noise)]
    grown = [*jobs[:-2], jobs[-2] + more[0], jobs[-1] + more[1]]
    before, after = seen(jobs), seen(grown)
    assert expected(after, season, ahead_s)[0] >= expected(before, season, ahead_s)[0] - 1e-9
    assert expected_in_burst(after, ahead_s) >= expected_in_burst(before, ahead_s) - 1e-9
    assert after.burst_until is not None or before.burst_until is None
