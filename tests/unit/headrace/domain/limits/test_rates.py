"""What an app has left of its minute."""

import pytest

from headrace.domain.limits.rates import NO_RATES, RateLeft


@pytest.mark.parametrize(("left", "full_in_s"), [(120, 0.0), (119, 0.5), (60, 30.0), (0, 60.0)])
def test_a_rate_is_full_again_once_what_was_used_has_come_back(left: int, full_in_s: float) -> None:
    assert RateLeft(120, left).full_in_s == pytest.approx(full_in_s)


def test_an_app_without_limits_has_no_rates() -> None:
    assert (NO_RATES.requests, NO_RATES.tokens) == (None, None)
