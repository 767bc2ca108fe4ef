"""An app's rates in OpenAI's headers, and times in its spelling."""

import pytest

from api.errors.rates import duration, rate_headers
from headrace.domain.limits.rates import NO_RATES, RateLeft, RatesLeft


def test_each_limited_rate_has_its_three_headers() -> None:
    assert rate_headers(RatesLeft(RateLeft(60, 59), RateLeft(90_000, 0))) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "90000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m0s",
    }


def test_what_is_not_limited_has_no_header() -> None:
    assert rate_headers(NO_RATES) == {}
    assert all("tokens" in name for name in rate_headers(RatesLeft(tokens=RateLeft(10, 5))))


def test_no_less_than_nothing_is_left() -> None:
    assert rate_headers(RatesLeft(RateLeft(60, -3)))["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize(
    ("seconds", "spelled"),
    [
        (0, "0ms"),
        (0.0004, "0ms"),
        (0.12, "120ms"),
        (0.9996, "1s"),
        (1, "1s"),
        (7.664, "7.66s"),
        (59.999, "1m0s"),
        (60, "1m0s"),
        (61.5, "1m1.5s"),
        (360, "6m0s"),
    ],
)
def test_a_time_is_spelled_as_openai_does(seconds: float, spelled: str) -> None:
    assert duration(seconds) == spelled
