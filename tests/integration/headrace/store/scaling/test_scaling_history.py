"""What a decision is told of a pool's past.

What was offered on past days: samples, minutes and hours, each counted once.

How forecasts come out: compared once, when their time is over, with the mean of what was offered around it.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.config import Settings
from headrace.domain.scaling import DemandHistory, ErrorProfile, Moment, PastNeed, PoolHosts
from headrace.store import Store
from headrace.store.scaling import scaling_history
from headrace.store.scaling.scaling_history import offered, season, tokens_per_job
from headrace.tables import decisions, queue_samples
from tests.integration.headrace.store.scaling.conftest import NOW, every

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
HOSTS = PoolHosts(1, tokens_per_s=100.0, slots_per_host=8.0)


@pytest.fixture
def load(store: Store, settings: Settings) -> Callable[..., DemandHistory]:
    def read(hosts: PoolHosts = HOSTS, **scaling: Any) -> DemandHistory:
        changed = settings.model_copy(update={"scaling": settings.scaling.model_copy(update=scaling)})
        with store.begin() as db:
            return scaling_history.load(db, changed, "chat", hosts, NOW)

    return read


@pytest.fixture
def decide(add: Callable[..., None]) -> Callable[..., None]:
    """Writes a decision of this number of seconds ago."""

    def write(age_s: float, need: int | None = None, pool: str = "chat", **columns: Any) -> None:
        row = {"mode": "active", "hosts": 1, "target": 1, "reason": "", "inputs": {}, "need": need}
        row |= {"spare_need": None if need is None else need + 1, "at": NOW - age_s * SECOND, "pool": pool}
        add(decisions, [{**row, **columns}])

    return write


def test_a_pool_that_was_never_observed_has_no_history(load: Callable[..., DemandHistory]) -> None:
    assert load() == DemandHistory()


def test_samples_of_all_lanes_are_joined_to_half_minutes(
    load: Callable[..., DemandHistory], sample: Callable[..., None], store: Store
) -> None:
    sample(every(5, NOW - 90 * SECOND, NOW), offered=3, offered_tokens=700, depth=2, depth_tokens=50, slots=8)
    with store.begin() as db:
        high = {"offered": 1, "offered_tokens": 100, "refused": 2, "spilled": 1, "depth": 4, "running": 5}
        of_high = (queue_samples.c.queue == "chat.high", queue_samples.c.at == NOW - 5 * SECOND)
        db.execute(sa.update(queue_samples).where(*of_high).values(high))
    sample([NOW], pool="chat2", offered_tokens=9999)
    oldest, middle, newest = load().moments
    assert newest == Moment(NOW - 5 * SECOND, 30.0, 19, 4300, 2, 1, 6, 50, 5, 8)
    assert middle == oldest.__class__(NOW - 35 * SECOND, 30.0, 18, 4200, 0, 0, 2, 50, 0, 8)
    assert (oldest.at, oldest.seconds) == (NOW - 65 * SECOND, 30.0)


@pytest.mark.parametrize(("window_s", "count", "step_s"), [(600.0, 20, 30.0), (200.0, 20, 10.0), (1200.0, 40, 30.0)])
def test_a_window_is_read_in_steps_and_the_one_before_as_a_whole(
    load: Callable[..., DemandHistory], sample: Callable[..., None], window_s: float, count: int, step_s: float
) -> None:
    sample(every(5, NOW - 60 * MINUTE, NOW + 5 * SECOND), offered=1)
    older, *last = load(window_s=window_s).moments
    assert [moment.seconds for moment in last] == [step_s] * count
    assert (older.at, older.seconds) == (NOW - window_s * SECOND, window_s)
    assert older.offered_jobs == window_s / 5


def test_an_interval_without_samples_belongs_to_the_next_one(
    load: Callable[..., DemandHistory], sample: Callable[..., None]
) -> None:
    sample([NOW - 300 * SECOND, NOW - 60 * SECOND, NOW], offered_tokens=600)
    assert [moment.seconds for moment in load().moments] == [5.0, 240.0, 60.0]


def test_samples_that_a_clock_which_was_ahead_has_dated_do_not_count(
    load: Callable[..., DemandHistory], sample: Callable[..., None]
) -> None:
    sample(every(5, NOW - MINUTE, NOW), offered=3, offered_tokens=700)
    before = load().moments
    sample([NOW + 2 * 60 * MINUTE], offered=0)
    assert load().moments == before


def test_needs_are_those_of_a_window_and_the_burst_that_of_the_last_decision(
    load: Callable[..., DemandHistory], decide: Callable[..., None]
) -> None:
    decide(30, 4, burst_until=NOW + MINUTE)
    decide(599, 3)
    decide(601, 9)
    decide(90, None)
    decide(20, 7, "chat2")
    found = load()
    assert found.needs == (PastNeed(NOW - 599 * SECOND, 3, 4), PastNeed(NOW - 30 * SECOND, 4, 5))
    assert found.burst_until == NOW + MINUTE
    decide(10)
    assert load().burst_until is None


def test_past_errors_need_the_rate_of_a_host(load: Callable[..., DemandHistory], decide: Callable[..., None]) -> None:
    decide(900, forecast_at=NOW - 9 * MINUTE, forecast_tokens_per_s=50.0, actual_tokens_per_s=60.0)
    assert [profile.count for profile in load().errors] == [1]
    assert load(PoolHosts(1)).errors == ()


def test_forecasts_are_compared_on_the_way(
    load: Callable[..., DemandHistory], decide: Callable[..., None], sample: Callable[..., None]
) -> None:
    sample(every(5, NOW - 20 * MINUTE, NOW), offered_tokens=500)
    decide(660, forecast_at=NOW - 6 * MINUTE, forecast_tokens_per_s=50.0)
    assert load().errors[0].ratios == (2.0,) * 21


def test_the_size_of_a_job_is_read_while_no_job_is_offered(
    load: Callable[..., DemandHistory], sample: Callable[..., None]
) -> None:
    sample([NOW - timedelta(hours=3)], offered=2, offered_tokens=800)
    sample(every(5, NOW - 20 * MINUTE, NOW))
    assert load().tokens_per_job == 400
    sample([NOW], offered=1, offered_tokens=10)
    assert load().tokens_per_job is None


def test_the_order_of_rows_does_not_matter(
    load: Callable[..., DemandHistory], sample: Callable[..., None], decide: Callable[..., None], store: Store
) -> None:
    times: list[datetime] = every(30, NOW - 40 * MINUTE, NOW)
    for number, at in enumerate(times):
        sample([at], offered=number, offered_tokens=10 * number, depth=number)
        decide(2400 - 30 * number, number, forecast_at=at, forecast_tokens_per_s=1.0 + number)
    before = load()
    with store.begin() as db:
        for table in (queue_samples, decisions):
            rows = [dict(row) for row in db.execute(sa.select(table)).mappings()]
            db.execute(sa.delete(table))
            own = [column.name for column in table.c if column.identity is None]
            db.execute(sa.insert(table), [{name: row[name] for name in own} for row in reversed(rows)])
    assert load() == before


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


WINDOW_S = 600.0


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
            scaling_history.compare_forecasts(db, "chat", WINDOW_S, seen_at)
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
        assert scaling_history.forecast_errors(db, "chat", 200, NOW) == (
            ErrorProfile(False, 0.0, 5, quantiles),
            ErrorProfile(True, 1.0, 1, (0.3333,) * 21),
        )
        assert [each.above_hosts for each in scaling_history.forecast_errors(db, "chat", 50, NOW)] == [2.0, 4.0]
