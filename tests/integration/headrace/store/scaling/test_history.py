"""What a decision is told of a pool's past."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.config import Settings
from headrace.domain.scaling import History, Moment, PastNeed, PoolHosts
from headrace.store import Store
from headrace.store.scaling import history
from headrace.tables import decisions, queue_samples
from tests.integration.headrace.store.scaling.conftest import NOW, every

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
HOSTS = PoolHosts(1, tokens_per_s=100.0, slots_per_host=8.0)


@pytest.fixture
def load(store: Store, settings: Settings) -> Callable[..., History]:
    def read(hosts: PoolHosts = HOSTS, **scaling: Any) -> History:
        changed = settings.model_copy(update={"scaling": settings.scaling.model_copy(update=scaling)})
        with store.begin() as db:
            return history.load(db, changed, "chat", hosts, NOW)

    return read


@pytest.fixture
def decide(add: Callable[..., None]) -> Callable[..., None]:
    """Writes a decision of so many seconds ago."""

    def write(age_s: float, need: int | None = None, pool: str = "chat", **columns: Any) -> None:
        row = {"mode": "active", "hosts": 1, "target": 1, "reason": "", "inputs": {}, "need": need}
        row |= {"spare_need": None if need is None else need + 1, "at": NOW - age_s * SECOND, "pool": pool}
        add(decisions, [{**row, **columns}])

    return write


def test_a_pool_that_was_never_observed_has_no_history(load: Callable[..., History]) -> None:
    assert load() == History()


def test_samples_of_all_lanes_are_joined_to_half_minutes(
    load: Callable[..., History], sample: Callable[..., None], store: Store
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
    load: Callable[..., History], sample: Callable[..., None], window_s: float, count: int, step_s: float
) -> None:
    sample(every(5, NOW - 60 * MINUTE, NOW + 5 * SECOND), offered=1)
    older, *last = load(window_s=window_s).moments
    assert [moment.seconds for moment in last] == [step_s] * count
    assert (older.at, older.seconds) == (NOW - window_s * SECOND, window_s)
    assert older.offered_jobs == window_s / 5


def test_an_interval_without_samples_belongs_to_the_next_one(
    load: Callable[..., History], sample: Callable[..., None]
) -> None:
    sample([NOW - 300 * SECOND, NOW - 60 * SECOND, NOW], offered_tokens=600)
    assert [moment.seconds for moment in load().moments] == [5.0, 240.0, 60.0]


def test_samples_that_a_clock_which_was_ahead_has_dated_do_not_count(
    load: Callable[..., History], sample: Callable[..., None]
) -> None:
    sample(every(5, NOW - MINUTE, NOW), offered=3, offered_tokens=700)
    before = load().moments
    sample([NOW + 2 * 60 * MINUTE], offered=0)
    assert load().moments == before


def test_needs_are_those_of_a_window_and_the_burst_that_of_the_last_decision(
    load: Callable[..., History], decide: Callable[..., None]
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


def test_past_errors_need_the_rate_of_a_host(load: Callable[..., History], decide: Callable[..., None]) -> None:
    decide(900, forecast_at=NOW - 9 * MINUTE, forecast_tokens_per_s=50.0, actual_tokens_per_s=60.0)
    assert [profile.count for profile in load().errors] == [1]
    assert load(PoolHosts(1)).errors == ()


def test_forecasts_are_compared_on_the_way(
    load: Callable[..., History], decide: Callable[..., None], sample: Callable[..., None]
) -> None:
    sample(every(5, NOW - 20 * MINUTE, NOW), offered_tokens=500)
    decide(660, forecast_at=NOW - 6 * MINUTE, forecast_tokens_per_s=50.0)
    assert load().errors[0].ratios == (2.0,) * 21


def test_the_size_of_a_job_is_read_while_no_job_is_offered(
    load: Callable[..., History], sample: Callable[..., None]
) -> None:
    sample([NOW - timedelta(hours=3)], offered=2, offered_tokens=800)
    sample(every(5, NOW - 20 * MINUTE, NOW))
    assert load().tokens_per_job == 400
    sample([NOW], offered=1, offered_tokens=10)
    assert load().tokens_per_job is None


def test_the_order_of_rows_does_not_matter(
    load: Callable[..., History], sample: Callable[..., None], decide: Callable[..., None], store: Store
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
