"""The autoscalers of `benchmarks/peers`, with which `predictive` is compared."""

from datetime import UTC, datetime, timedelta

from benchmarks.peers.autoscalers import HpaPilot, KpaPilot
from headrace.domain.scaling import Moment, PoolHosts
from plugins.backtest.pilots import Pilot
from plugins.backtest.pool import World

NOW = datetime(2026, 1, 5, tzinfo=UTC)
WORLD = World(min_hosts=1, max_hosts=30)


def moment(in_flight: int, at: datetime = NOW) -> Moment:
    return Moment(at, 30.0, 0, 0, 0, 0, 0, 0, in_flight, 20)


def after(pilot: Pilot, ticks: int, in_flight: int, ready: int, start: int = 0) -> int:
    """What the pilot wants after this number of observations of one kind."""
    target = ready
    for tick in range(start, start + ticks):
        now = NOW + timedelta(seconds=30 * tick)
        target = pilot.target([moment(in_flight, now)] * 2, PoolHosts(ready=ready), now)
    return target


def test_both_aim_at_70_per_cent_of_the_slots() -> None:
    # 56 in flight are 4 hosts with 14 busy slots each.
    assert after(KpaPilot(WORLD), 1, 56, ready=3) == 4
    assert after(HpaPilot(WORLD), 1, 56, ready=3) == 4


def test_kpa_panics_at_twice_the_load_and_does_not_scale_down_for_a_minute() -> None:
    pilot = KpaPilot(WORLD)

    assert after(pilot, 1, 100, ready=2) == 8
    assert after(pilot, 1, 0, ready=8, start=1) == 8
    assert after(pilot, 1, 0, ready=8, start=2) == 4


def test_hpa_ignores_a_tenth_and_keeps_the_highest_recommendation_of_five_minutes() -> None:
    pilot = HpaPilot(WORLD)

    assert after(pilot, 1, 61, ready=4) == 4
    assert after(pilot, 10, 14, ready=4, start=1) == 4
    assert after(pilot, 1, 14, ready=4, start=11) == 1
