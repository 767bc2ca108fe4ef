from datetime import UTC, datetime, timedelta

import pytest

from headrace.domain.limits.rates import ProviderRate
from workers.engines.openai.headers import PATIENCE_S, rates, retry_after_s


def headers(kind: str, limit: str, left: str, reset: str) -> dict[str, str]:
    values = {"limit": limit, "remaining": left, "reset": reset}
    return {f"x-ratelimit-{name}-{kind}": value for name, value in values.items()}


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("12ms", 0.012),
        ("1m26.4s", 86.4),
        ("2h3m", 7380),
        ("1d", 86_400),
        ("0s", 0),
        ("30", 30),
        ("0.5", 0.5),
        ("1795656243", 86_400),
        ("1e300", 86_400),
        ("9" * 400 + "s", 86_400),
    ],
)
def test_times_are_read_as_providers_write_them(reset: str, seconds: float) -> None:
    found = rates(headers("requests", "500", "499", reset))
    assert found is not None
    assert found.requests is not None
    assert found.requests.full_in_s == pytest.approx(seconds)


def test_both_rates_are_read() -> None:
    found = rates(headers("requests", "500", "480", "2s") | headers("tokens", "30000", "0", "60s"))
    assert found is not None
    assert (found.requests, found.tokens) == (ProviderRate(500, 480, 2), ProviderRate(30_000, 0, 60))


@pytest.mark.parametrize(
    "said",
    [
        {},
        headers("requests", "500", "499", "soon"),
        headers("requests", "500", "499", ""),
        headers("requests", "500", "499", "-1"),
        headers("requests", "500", "499", "inf"),
        headers("requests", "many", "499", "1s"),
        headers("requests", "0", "0", "1s"),
        headers("requests", "9" * 400, "1", "1s"),
        headers("requests", "500", "499", "nan"),
        headers("requests", "-1", "-1", "1s"),
        {"x-ratelimit-limit-requests": "500"},
    ],
)
def test_what_is_not_said_or_makes_no_sense_is_not_known(said: dict[str, str]) -> None:
    assert rates(said) is None


@pytest.mark.parametrize(("left", "read"), [("-3", 0), ("900", 500)])
def test_what_is_left_lies_between_nothing_and_the_limit(left: str, read: int) -> None:
    found = rates(headers("requests", "500", left, "1s"))
    assert found is not None
    assert found.requests is not None
    assert found.requests.left == read


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "100000"}, PATIENCE_S),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7),
        ({"retry-after-ms": "nan", "retry-after": "7"}, 7),
    ],
)
def test_retry_after_is_bounded(said: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(said) == seconds


IMF_FIXDATE, RFC_850, ASCTIME = "%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"


@pytest.mark.parametrize("form", [IMF_FIXDATE, RFC_850, ASCTIME])
@pytest.mark.parametrize(("from_now_s", "seconds"), [(30, 30), (3600, PATIENCE_S), (-3600, 0)])
def test_retry_after_may_be_a_date_in_each_of_the_three_forms(form: str, from_now_s: int, seconds: float) -> None:
    date = (datetime.now(UTC) + timedelta(seconds=from_now_s)).strftime(form)
    assert retry_after_s({"retry-after": date}) == pytest.approx(seconds, abs=2)


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Fri, 31 Dec 9999 23:59:59 GMT", PATIENCE_S),
        ("Fri, 31 Dec 9999 23:59:59 -1200", PATIENCE_S),
        ("Fri, 31 Dec 9999 23:59:59", PATIENCE_S),
        ("Mon, 01 Jan 0001 00:00:00 GMT", 0),
        ("Tue, 31 Feb 2026 00:00:00 GMT", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 +2400", None),
        ("Fri, 31 Dec 9999 23:59:59 +" + "9" * 30, None),
        ("Fri, 31 Dec 9999", None),
    ],
)
def test_a_date_is_bounded_and_one_that_makes_no_sense_is_not_known(date: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": date}) == seconds
