"""What the product would have recorded: needs, bursts, the season and the errors of forecasts."""

from datetime import UTC, datetime, timedelta

import pytest

from headrace.cli.backtest.pilots import Memory
from headrace.domain.scaling import Action, Decision, Forecast, History, Moment, PastNeed

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
TICK = timedelta(seconds=30)
HOST = 1000.0


def moment(at: datetime, per_s: float) -> Moment:
    return Moment(at, 30.0, 10, round(30 * per_s), 0, 0, 0, 0, 0, 20)


def decision(forecast: Forecast | None = None, need: int | None = None) -> Decision:
    return Decision(2, Action.HOLD, "", need, need, forecast)


def pass_through(memory: Memory, start: datetime, ticks: int, per_s: float) -> History:
    """Observe this rate for so long."""
    history = History()
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
    memory.note(decision(Forecast(at, 1600.0, "level")), MONDAY + TICK)
    # The window is from 5 to 15 minutes: half of it at 1,000 tokens/s, half at 3,000.
    pass_through(memory, MONDAY + TICK, 19, 1000)
    assert pass_through(memory, at, 9, 3000).errors == ()
    history = pass_through(memory, at + 9 * TICK, 21, 3000)

    (profile,) = history.errors
    assert (profile.count, profile.is_burst, profile.above_hosts) == (1, False, 1.0)
    assert set(profile.ratios) == {1.25}
