"""The pilots of a backtest: the product's policies, each mechanism switched off, and the oracle."""

from array import array
from datetime import timedelta

import numpy as np
import pytest

from headrace.cli.backtest.load import OfferedLoad, Sizes, offered_load
from headrace.cli.backtest.pilots import MECHANISMS, OraclePilot, ProductPilot, settings_for
from headrace.cli.backtest.runs import CaseResult, PolicyCase, run
from headrace.cli.backtest.trace import RateTrace
from headrace.cli.backtest.world import World
from headrace.domain.scaling import Moment, PoolHosts
from headrace.policies.scaling import forecast

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
