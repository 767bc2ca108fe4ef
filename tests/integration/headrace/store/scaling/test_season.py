"""What was offered on past days: samples, minutes and hours, each counted once."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from headrace.store import Store
from headrace.store.scaling.season import offered, season, tokens_per_job
from tests.integration.headrace.store.scaling.conftest import NOW, every

#: The day of `NOW`.
TODAY = datetime(2026, 11, 27, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def spans(store: Store, since: datetime, until: datetime) -> list[tuple[datetime, float, float]]:
    with store.begin() as db:
        return sorted(offered(db, "chat", since, until))


def test_samples_and_what_they_were_rolled_up_to_are_counted_once(
    store: Store, sample: Callable[..., None], roll_up: Callable[..., None]
) -> None:
    start = TODAY - DAY
    roll_up([start], 3600, offered_tokens=36_000)
    # A sample that was written late, after its hour was rolled up.
    roll_up([start], 60, offered_tokens=600)
    roll_up([TODAY], 60, offered_tokens=900)
    # The second hour is in minutes up to 01:14, and in samples from then on.
    roll_up(every(60, start + HOUR, start + HOUR + timedelta(minutes=14)), 60, offered_tokens=1200)
    sample(every(5, start + timedelta(minutes=74, seconds=5), start + 2 * HOUR), offered_tokens=150)
    sample([start + 2 * HOUR], offered_tokens=150)
    tens = [start + HOUR + timedelta(minutes=10 * number) for number in range(6)]
    found = spans(store, start, TODAY)
    assert found[:2] == [(start, 60, 600), (start, 3600, 36_000)]
    assert [(at, seconds) for at, seconds, _ in found[2:]] == [(at, pytest.approx(600)) for at in tens]
    assert [tokens for *_, tokens in found[2:]] == [12_000, 4 * 1200 + 6 * 1800, *[18_000] * 4]


def test_lanes_are_added_up_over_the_same_time(store: Store, sample: Callable[..., None]) -> None:
    times = every(5, TODAY - DAY + timedelta(seconds=5), TODAY - DAY + timedelta(seconds=605))
    sample(times, offered_tokens=7)
    sample(times, pool="chat2", offered_tokens=900)
    assert spans(store, TODAY - DAY, TODAY) == [(TODAY - DAY, pytest.approx(600), 120 * 7)]


def test_a_sample_that_is_missing_takes_no_time_away(store: Store, sample: Callable[..., None]) -> None:
    times = every(5, TODAY - DAY + timedelta(seconds=5), TODAY - DAY + timedelta(seconds=605))
    # The sample after the gap counts what was offered in it.
    sample(times[:40] + times[80:], offered_tokens=5)
    [(_, seconds, _)] = spans(store, TODAY - DAY, TODAY)
    assert seconds == pytest.approx(600)


def test_the_season_is_that_of_past_days_of_todays_kind(
    store: Store, sample: Callable[..., None], roll_up: Callable[..., None]
) -> None:
    def found(now: datetime = NOW, provision_s: float = 300) -> list[float] | None:
        with store.begin() as db:
            seen = season(db, "chat", provision_s, now)
        return None if seen is None else [round(rate) for rate in seen.rates]

    # A Saturday and a Sunday in hours, and what was offered today.
    roll_up(every(3600, TODAY - 13 * DAY, TODAY - 11 * DAY), 3600, offered_tokens=3600 * 40)
    sample(every(60, TODAY, NOW), offered_tokens=60 * 90)
    assert found() is None
    assert found(NOW + DAY) == [40] * 13
    # Three working days: one in hours, one in minutes, one in samples.
    roll_up(every(3600, TODAY - 8 * DAY, TODAY - 7 * DAY), 3600, offered_tokens=3600 * 10)
    assert found() == [10] * 13
    roll_up(every(60, TODAY - 3 * DAY, TODAY - 2 * DAY), 60, offered_tokens=60 * 20)
    sample([at + timedelta(seconds=30) for at in every(60, TODAY - DAY, TODAY)], offered_tokens=60 * 30)
    assert found() == [20] * 13
    assert found(provision_s=3600) == [20] * 25


def test_a_mean_job_is_that_of_the_last_week(
    store: Store, sample: Callable[..., None], roll_up: Callable[..., None]
) -> None:
    def found() -> float | None:
        with store.begin() as db:
            return tokens_per_job(db, "chat", NOW)

    assert found() is None
    roll_up([NOW - 8 * DAY], 3600, offered=100, offered_tokens=1)
    sample([NOW - HOUR], pool="chat2", offered=100, offered_tokens=1)
    sample([NOW - HOUR], offered=3, offered_tokens=900)
    assert found() == 300
    roll_up([NOW - 2 * DAY], 60, offered=1, offered_tokens=500)
    assert found() == 350
