"""How forecasts come out: compared once, when their time is over, with the mean of what was offered around it."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.domain.scaling import ErrorProfile
from headrace.store import Store
from headrace.store.scaling import outcomes
from headrace.tables import decisions
from tests.integration.headrace.store.scaling.conftest import NOW, every

WINDOW_S = 600.0
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


@pytest.fixture
def forecast(add: Callable[..., None]) -> Callable[..., None]:
    """Writes a decision with a forecast for that time, made 5 minutes before."""

    def write(at: datetime, tokens_per_s: float = 100.0, **columns: Any) -> None:
        row = {
            "at": at - 5 * MINUTE,
            "pool": "chat",
            "mode": "active",
            "hosts": 1,
            "target": 1,
            "reason": "",
            "inputs": {},
        }
        add(decisions, [{**row, "forecast_at": at, "forecast_tokens_per_s": tokens_per_s, **columns}])

    return write


@pytest.fixture
def compared(store: Store) -> Callable[..., list[float | None]]:
    """Compares what is due; returns what each forecast's load was, the oldest first."""

    def compare(seen_at: datetime = NOW) -> list[float | None]:
        with store.begin() as db:
            outcomes.compare(db, "chat", WINDOW_S, seen_at)
            return list(db.scalars(sa.select(decisions.c.actual_tokens_per_s).order_by(decisions.c.forecast_at)))

    return compare


def test_the_mean_over_a_window_around_its_time_counts(
    forecast: Callable[..., None], sample: Callable[..., None], compared: Callable[..., list[float | None]]
) -> None:
    middle = NOW - 5 * MINUTE
    forecast(middle)
    sample([NOW - 10 * MINUTE, NOW + 5 * SECOND], offered_tokens=99_999)
    # The sample at its end counts, the one at its start covers the time before.
    sample(every(5, NOW - 10 * MINUTE + 5 * SECOND, middle), offered_tokens=100)
    sample(every(5, middle, NOW + 5 * SECOND), offered_tokens=300)
    assert compared(NOW - SECOND) == [None]
    assert compared() == [pytest.approx((59 * 100 + 61 * 300) / 600)]


def test_a_forecast_is_compared_once(
    forecast: Callable[..., None], sample: Callable[..., None], compared: Callable[..., list[float | None]]
) -> None:
    forecast(NOW - 5 * MINUTE)
    sample(every(5, NOW - 11 * MINUTE, NOW + SECOND), offered_tokens=100)
    before = compared()
    sample(every(5, NOW - 11 * MINUTE + 2 * SECOND, NOW), offered_tokens=999)
    assert compared(NOW + 5 * MINUTE) == before == [pytest.approx(20)]


def test_what_was_hardly_observed_or_is_long_past_is_not_compared(
    forecast: Callable[..., None], sample: Callable[..., None], compared: Callable[..., list[float | None]]
) -> None:
    forecast(NOW - 66 * MINUTE)
    forecast(NOW - 20 * MINUTE)
    forecast(NOW - 64 * MINUTE, pool="chat2")
    sample(every(5, NOW - 90 * MINUTE, NOW - 40 * MINUTE), offered_tokens=100)
    sample(every(5, NOW - 22 * MINUTE, NOW - 15 * MINUTE), offered_tokens=100)
    sample([NOW - 5 * MINUTE])
    assert compared() == [None, None, None]
    assert compared(NOW - 2 * MINUTE) == [pytest.approx(20), None, None]


def test_profiles_are_by_burst_and_by_size_in_hosts(store: Store, forecast: Callable[..., None]) -> None:
    for number in range(5):
        forecast(NOW - number * MINUTE, 100, actual_tokens_per_s=50 + 50 * number)
    forecast(NOW - MINUTE, 300, actual_tokens_per_s=100, burst_until=NOW)
    forecast(NOW - MINUTE, 300, actual_tokens_per_s=9, pool="chat2")
    forecast(NOW - MINUTE, 300)
    forecast(NOW - timedelta(days=7), 300, actual_tokens_per_s=9)
    quantiles = tuple(round(0.5 + 0.1 * step, 4) for step in range(21))
    with store.begin() as db:
        assert outcomes.errors(db, "chat", 200, NOW) == (
            ErrorProfile(False, 0.0, 5, quantiles),
            ErrorProfile(True, 1.0, 1, (0.3333,) * 21),
        )
        assert [each.above_hosts for each in outcomes.errors(db, "chat", 50, NOW)] == [2.0, 4.0]
