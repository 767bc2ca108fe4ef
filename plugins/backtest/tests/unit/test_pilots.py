"""The pilots of a backtest: policies, each mechanism switched off, the oracle, and what the product would record."""

from array import array
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from headrace.domain.scaling import Action, Decision, DemandForecast, DemandHistory, Moment, PastNeed, PoolHosts
from headrace.policies.scaling import forecast
from plugins.backtest.load import OfferedLoad, RateTrace, Sizes, offered_load
from plugins.backtest.pilots import MECHANISMS, Memory, OraclePilot, ProductPilot, settings_for
from plugins.backtest.pool import World
from plugins.backtest.runs import CaseResult, PolicyCase, run

WORLD = World(slots=5, tokens_per_s=1000, min_hosts=1)


def days() -> OfferedLoad:
    """Two days with a steep peak at 9 and waves of half an hour in between, on hosts that serve one a second."""
    minutes = range(2 * 1440)
    waves = [2 + minute % 30 / 30 + (6 if 540 <= minute % 1440 < 660 else 0) for minute in minutes]
    return offered_load(RateTrace(array("d", [30 * each for each in waves])), Sizes(200, 200), 1)


LOAD = days()


def case(policy: str, off: str | None = None, world: World = WORLD) -> CaseResult:
    return run(PolicyCase(policy, off), LOAD, world, lambda _: None)


@pytest.fixture(scope="module")
def whole() -> CaseResult:
    return case("predictive")


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_each_mechanism_that_is_switched_off_decides_something_else(mechanism: str, whole: CaseResult) -> None:
    world = World(slots=5, tokens_per_s=1000, min_hosts=1, overflow_usd=0.0001) if mechanism == "prices" else WORLD
    on = case("predictive", world=world) if mechanism == "prices" else whole

    assert case("predictive", mechanism, world).changes != on.changes


def test_a_trend_that_is_switched_off_for_one_run_is_on_again_after_it() -> None:
    before = forecast.TREND_SIGMAS
    pilot = ProductPilot(settings_for(WORLD, "predictive", 1), ["trend"])
    now = LOAD.start
    pilot.target([Moment(now, 30.0, 1, 400, 0, 0, 0, 0, 0, 5)], PoolHosts(ready=1), now)

    assert before == forecast.TREND_SIGMAS


def test_no_host_is_ordered_where_the_paid_api_is_cheaper_than_a_full_host() -> None:
    world = World(slots=5, tokens_per_s=1000, min_hosts=1, overflow_usd=0.0003, overflow_per_s=50)
    found = case("predictive", world=world)

    # A host serves 3,600 requests an hour: at 0.0003 USD each, 1.08 USD for 4.10.
    assert found.figures.ups == 0
    assert found.figures.spilled > 0


def test_fixed_begins_and_ends_with_the_hosts_of_the_peak() -> None:
    found = case("fixed").figures

    assert (found.ups, found.downs) == (0, 0)
    assert found.host_hours == pytest.approx(48 * 6, abs=48)


@pytest.mark.parametrize(("minute", "hosts"), [(0, 1), (11, 1), (17, 3), (30, 3), (36, 1)])
def test_the_oracle_orders_as_long_before_the_demand_as_a_host_takes(minute: int, hosts: int) -> None:
    world = World(min_hosts=1, max_hosts=30)
    demand = np.array([0.5] * 20 + [2.5] * 15 + [0.5] * 20) * world.tokens_per_s
    one = np.ones(1)
    load = OfferedLoad(LOAD.start, 3300.0, one, one, one, demand, 1.0)

    now = LOAD.start + timedelta(minutes=minute)
    assert (
        OraclePilot(world, load).target([Moment(now, 30.0, 0, 0, 0, 0, 0, 0, 0, 20)], PoolHosts(ready=1), now) == hosts
    )


MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
TICK = timedelta(seconds=30)
HOST = 1000.0


def moment(at: datetime, per_s: float) -> Moment:
    return Moment(at, 30.0, 10, round(30 * per_s), 0, 0, 0, 0, 0, 20)


def decision(forecast: DemandForecast | None = None, need: int | None = None) -> Decision:
    return Decision(2, Action.HOLD, "", need, need, forecast)


def pass_through(memory: Memory, start: datetime, ticks: int, per_s: float) -> DemandHistory:
    """Observe this rate for so long."""
    history = DemandHistory()
    for tick in range(1, ticks + 1):
        now = start + tick * TICK
        history = memory.history((moment(now, per_s),), HOST, now)
    return history


def test_needs_are_remembered_for_two_windows() -> None:
    memory = Memory(600.0)
    pass_through(memory, MONDAY, 1, 100)
    memory.note(decision(need=3), MONDAY + TICK)

    assert pass_through(memory, MONDAY + TICK, 40, 100).needs == (PastNeed(MONDAY + TICK, 3, 3),)
    assert pass_through(memory, MONDAY + 41 * TICK, 1, 100).needs == ()


def test_a_burst_lasts_as_long_as_the_last_decision_says() -> None:
    memory = Memory(600.0)
    until = MONDAY + timedelta(minutes=5)
    memory.note(Decision(2, Action.HOLD, "", burst_until=until), MONDAY)
    assert pass_through(memory, MONDAY, 1, 100).burst_until == until
    memory.note(decision(), MONDAY)
    assert pass_through(memory, MONDAY, 1, 100).burst_until is None


def test_the_season_is_known_after_the_first_whole_day_of_its_kind() -> None:
    memory = Memory(600.0)
    day = 2880
    assert pass_through(memory, MONDAY, day - 1, 100).season is None
    season = pass_through(memory, MONDAY + (day - 1) * TICK, 10, 100).season
    assert season is not None
    assert season.rates == pytest.approx([100] * len(season.rates))


def test_a_forecast_is_compared_with_the_mean_of_the_window_around_its_time() -> None:
    memory = Memory(600.0)
    pass_through(memory, MONDAY, 1, 1000)
    at = MONDAY + timedelta(minutes=10)
    memory.note(decision(DemandForecast(at, 1600.0, "level")), MONDAY + TICK)
    # The window is from 5 to 15 minutes: half of it at 1,000 tokens/s, half at 3,000.
    pass_through(memory, MONDAY + TICK, 19, 1000)
    assert pass_through(memory, at, 9, 3000).errors == ()
    history = pass_through(memory, at + 9 * TICK, 21, 3000)

    (profile,) = history.errors
    assert (profile.count, profile.is_burst, profile.above_hosts) == (1, False, 1.0)
    assert set(profile.ratios) == {1.25}
