"""How far forecasts were off, and the margin that follows."""

import math

import pytest

from headrace.domain.scaling import ErrorProfile
from headrace.policies.scaling import error_profiles
from headrace.policies.scaling.forecast.accuracy import upper


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
