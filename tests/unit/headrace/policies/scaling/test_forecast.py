"""The forecast: level, trend and burst, what past days lead one to expect, and how far forecasts were off."""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import ScalingSettings
from headrace.domain.scaling import DemandHistory, ErrorProfile, Moment, Season
from headrace.policies.scaling.forecast import (
    DayProfiles,
    Demand,
    Offered,
    demand_of,
    error_profiles,
    expected,
    expected_in_burst,
    upper,
)

NOW = datetime(2026, 11, 30, 8, 0, tzinfo=UTC)
JOB_TOKENS = 100


def offered(jobs: Sequence[int], every_s: float = 30.0) -> DemandHistory:
    """Jobs of each interval, oldest first. 30 jobs of 100 tokens in 30 s are 100 tokens/s."""
    newest_first = enumerate(reversed(jobs))
    return DemandHistory(
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
    history = DemandHistory(offered([30] * 20).moments, burst_until=until)
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


MONDAY = datetime(2026, 11, 2, tzinfo=UTC)
DAY = timedelta(days=1)


def days(rate: Callable[[int, int], float], count: int, start: datetime = MONDAY, span_s: int = 600) -> list[Offered]:
    """What was offered in each span of this number of days, at a rate that depends on the day and the hour."""
    spans = (start + timedelta(seconds=second) for second in range(0, count * 86_400, span_s))
    return [(at, span_s, span_s * rate((at - start).days, at.hour)) for at in spans]


def rates(offered: Sequence[Offered], now: datetime, zone: str = "UTC", reach_s: float = 1800) -> list[float] | None:
    season = DayProfiles.of(offered, now, ZoneInfo(zone)).season(now, reach_s)
    return None if season is None else [round(rate, 3) for rate in season.rates]


def test_without_a_whole_day_of_todays_kind_nothing_is_known() -> None:
    friday = MONDAY + 4 * DAY
    assert rates([], MONDAY) is None
    assert rates(days(lambda *_: 5.0, 1), MONDAY + DAY - timedelta(seconds=1)) is None, "today is not over"
    assert rates(days(lambda *_: 5.0, 1), MONDAY + DAY) == [5.0] * 4
    assert rates(days(lambda *_: 5.0, 1)[15:], MONDAY + DAY) is None, "less than 90 % of the day"
    assert rates(days(lambda *_: 5.0, 1)[14:], MONDAY + DAY) == [5.0] * 4
    assert rates(days(lambda *_: 5.0, 1, start=friday), friday + DAY) is None, "Saturday is another kind"


def test_the_median_of_the_last_five_days_of_the_kind_counts() -> None:
    by_day = [900.0, 1.0, 2.0, 3.0, 4.0, 50.0, 60.0, 5.0]
    offered = days(lambda day, _: by_day[day], 8)
    assert rates(offered, MONDAY + 8 * DAY) == [3.0] * 4, "Tuesday to Friday, and Monday"
    assert rates(offered, MONDAY + 12 * DAY) == [55.0] * 4, "Saturday and Sunday"


def test_rates_change_in_proportion_between_the_middles_of_two_slots() -> None:
    offered = days(lambda _, hour: 40.0 if hour >= 9 else 10.0, 1)
    nine = MONDAY + DAY + timedelta(hours=9)
    assert rates(offered, nine) == [25.0, 40.0, 40.0, 40.0]
    assert rates(offered, nine - timedelta(seconds=300)) == [10.0, 40.0, 40.0, 40.0]


def test_after_midnight_the_next_days_kind_counts() -> None:
    offered = days(lambda day, _: 10.0 if day < 5 else 2.0, 7)
    friday_night = MONDAY + 11 * DAY + timedelta(hours=23, minutes=45)
    assert rates(offered, friday_night) == [10.0, 10.0, 2.0, 2.0]


@pytest.mark.parametrize("span_s", [30, 60, 600, 3600])
def test_spans_of_any_length_are_added_up(span_s: int) -> None:
    offered = days(lambda *_: 7.0, 1, span_s=span_s)
    assert rates(offered[::-1], MONDAY + DAY) == [7.0] * 4


def test_days_are_those_of_the_zone_across_a_change_of_its_clocks() -> None:
    """Peak from 9 to 10 in Berlin. Before 29 March that is 8:00 in UTC, after it 7:00."""
    berlin = ZoneInfo("Europe/Berlin")
    thursday = datetime(2026, 3, 26, tzinfo=berlin).astimezone(UTC)
    spans = [thursday + timedelta(minutes=10 * i) for i in range(2 * 144)]
    offered = [(at, 600.0, 600.0 * (80 if at.astimezone(berlin).hour == 9 else 20)) for at in spans]
    monday = datetime(2026, 3, 30, 7, 5, tzinfo=UTC)
    assert rates(offered, monday, "Europe/Berlin", 0) == [80.0]
    assert rates(offered, monday - timedelta(minutes=10), "Europe/Berlin", 0) == [20.0]


def test_a_slot_that_no_day_observed_is_as_the_one_before() -> None:
    offered = [span for span in days(lambda _, hour: float(hour), 1) if span[0].hour != 12]
    noon = MONDAY + DAY + timedelta(hours=12, minutes=5)
    assert rates(offered, noon, reach_s=0) == [11.0]


def test_forecasts_are_compared_by_burst_and_size() -> None:
    compared = [(100.0, False, 0.5, 50.0 + i) for i in range(101)] + [
        (100.0, True, 9.0, 80.0),
        (200.0, False, 2.0, 100.0),
    ]
    profiles = {(profile.is_burst, profile.above_hosts): profile for profile in error_profiles(compared)}
    assert profiles.keys() == {(False, 0.0), (False, 2.0), (True, 8.0)}
    small = profiles[False, 0.0]
    assert small.count == 101
    assert small.ratios == pytest.approx([0.5 + i / 20 for i in range(21)])
    assert profiles[True, 8.0].ratios == (0.8,) * 21


def test_a_forecast_of_nothing_is_left_out_and_one_far_too_low_counts_four_times() -> None:
    assert error_profiles([(0.0, False, 0.0, 100.0)]) == ()
    assert error_profiles([(1.0, False, 0.0, 100.0)])[0].ratios == (4.0,) * 21


def profile(above: float, ratio: float, count: int = 1000, is_burst: bool = False) -> ErrorProfile:
    return ErrorProfile(is_burst, above, count, tuple(ratio * i / 20 for i in range(21)))


PRIOR = math.exp(0.12 * 1.2815515655446004)


@pytest.mark.parametrize(
    ("forecast", "profiles", "is_burst", "outcome"),
    [
        pytest.param(500.0, (), False, 500 * PRIOR, id="nothing learned"),
        pytest.param(500.0, (profile(0, 2.0),), False, 900.0, id="learned: 90 % of 2"),
        pytest.param(500.0, (profile(0, 2.0, 119),), False, 500 * PRIOR, id="from 119 forecasts"),
        pytest.param(500.0, (profile(0, 2.0, 120),), False, 900.0, id="from 120"),
        pytest.param(500.0, (profile(0, 2.0),), True, 500 * PRIOR, id="not learned for bursts"),
        pytest.param(500.0, (profile(0, 2.0, 359, True),), True, 500 * PRIOR, id="from 359 in bursts"),
        pytest.param(500.0, (profile(0, 2.0, 360, True),), True, 900.0, id="from 360 in bursts"),
        pytest.param(
            3000.0, (profile(0, 4.0), profile(1, 1.0), profile(2, 1.0)), False, 3600.0, id="a smaller one's outcome"
        ),
        pytest.param(
            6000.0, (profile(0, 4.0), profile(1, 1.0), profile(2, 1.0), profile(4, 1.0)), False, 5400.0, id="its own"
        ),
        pytest.param(0.0, (profile(0, 4.0),), False, 0.0, id="nothing"),
    ],
)
def test_a_margin_is_learned_from_enough_forecasts_of_the_kind(
    forecast: float, profiles: tuple[ErrorProfile, ...], is_burst: bool, outcome: float
) -> None:
    assert upper(forecast, 0.9, profiles, 1000.0, is_burst=is_burst) == pytest.approx(outcome)
