"""The reactive policy: thresholds, steps, bounds, cooldown and stale data, each at its edges."""

from datetime import UTC, datetime, timedelta

import pytest

from headrace.config import ScalingSettings
from headrace.domain.scaling import Action, DemandHistory, Moment, PoolHosts
from headrace.policies.scaling.decisions import decide

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
POLICY = ScalingSettings(policy="reactive")


def moment(depth: int = 0, running: int = 50, slots: int = 100, age_s: float = 0) -> Moment:
    return Moment(NOW - timedelta(seconds=age_s), 5.0, 0, 0, 0, 0, depth, 0, running, slots)


def seen(depth: int = 0, running: int = 50, slots: int = 100, age_s: float = 0) -> DemandHistory:
    return DemandHistory((moment(depth, running, slots, age_s),))


NEVER = DemandHistory()


@pytest.mark.parametrize(("depth", "target"), [(0, 4), (1, 4), (99, 4), (100, 4), (101, 6), (10_000, 6)])
def test_depth_scales_up_by_two_only_above_its_threshold(depth: int, target: int) -> None:
    assert decide(seen(depth=depth), PoolHosts(4), POLICY, NOW).target == target


@pytest.mark.parametrize(
    ("running", "target"), [(0, 3), (1, 3), (29, 3), (30, 4), (31, 4), (79, 4), (80, 4), (81, 6), (100, 6)]
)
def test_load_scales_only_beyond_its_thresholds(running: int, target: int) -> None:
    assert decide(seen(running=running), PoolHosts(4), POLICY, NOW).target == target


def test_a_deep_queue_scales_up_when_the_load_is_low() -> None:
    assert decide(seen(depth=101, running=0), PoolHosts(4), POLICY, NOW).target == 6


@pytest.mark.parametrize(("depth", "running", "target"), [(0, 0, 3), (1, 0, 6), (0, 1, 6)])
def test_without_slots_anything_that_wants_one_is_full_load(depth: int, running: int, target: int) -> None:
    assert decide(seen(depth=depth, running=running, slots=0), PoolHosts(4), POLICY, NOW).target == target


@pytest.mark.parametrize(
    ("hosts", "running", "target"),
    [
        pytest.param(0, 50, 2, id="none at all"),
        pytest.param(1, 50, 2, id="one below the minimum"),
        pytest.param(1, 100, 3, id="below the minimum and busy"),
        pytest.param(2, 0, 2, id="idle at the minimum"),
        pytest.param(3, 0, 2, id="idle above the minimum"),
        pytest.param(18, 100, 20, id="busy two below the maximum"),
        pytest.param(19, 100, 20, id="busy one below the maximum"),
        pytest.param(20, 100, 20, id="busy at the maximum"),
        pytest.param(21, 50, 20, id="above the maximum"),
        pytest.param(25, 100, 20, id="above the maximum and busy"),
    ],
)
def test_the_target_stays_between_minimum_and_maximum(hosts: int, running: int, target: int) -> None:
    assert decide(seen(running=running), PoolHosts(hosts), POLICY, NOW).target == target


@pytest.mark.parametrize("change", ["up_at", "down_at"])
@pytest.mark.parametrize(("ago_s", "target"), [(0, 4), (1, 4), (299, 4), (300, 6), (301, 6)])
def test_a_change_waits_for_the_cooldown_of_the_last(change: str, ago_s: int, target: int) -> None:
    fleet = PoolHosts(4, **{change: NOW - timedelta(seconds=ago_s)})
    assert decide(seen(depth=101), fleet, POLICY, NOW).target == target


def test_the_minimum_does_not_wait_for_a_cooldown() -> None:
    assert decide(seen(), PoolHosts(1, up_at=NOW), POLICY, NOW).target == 2


@pytest.mark.parametrize(("age_s", "target"), [(0, 3), (59, 3), (60, 3), (61, 4), (3600, 4)])
def test_stale_samples_never_scale_down(age_s: float, target: int) -> None:
    assert decide(seen(running=0, age_s=age_s), PoolHosts(4), POLICY, NOW).target == target


@pytest.mark.parametrize("history", [NEVER, seen(running=0, age_s=61)])
def test_without_fresh_samples_the_maximum_does_not_scale_down_either(history: DemandHistory) -> None:
    assert decide(history, PoolHosts(25), POLICY, NOW).target == 25


@pytest.mark.parametrize(
    ("history", "hosts", "reason"),
    [
        (NEVER, PoolHosts(4), "hold: the pool was never observed, or not lately"),
        (seen(age_s=75), PoolHosts(4), "hold: the newest sample is 75 s old, more than 60 s"),
        (seen(), PoolHosts(4), "hold: depth 0 and load 0.50 are within bounds"),
        (seen(depth=140), PoolHosts(4), "up: depth 140 is above 100"),
        (seen(running=90), PoolHosts(4), "up: load 0.90 is above 0.80"),
        (seen(running=10), PoolHosts(4), "down: load 0.10 is below 0.30"),
        (seen(), PoolHosts(1), "up: 1 is below the minimum of 2 hosts"),
        (seen(running=90), PoolHosts(20), "hold: load 0.90 is above 0.80, at the limit of 2 to 20 hosts"),
        (
            seen(depth=140),
            PoolHosts(4, up_at=NOW - timedelta(seconds=60)),
            "hold: the last change cools down for another 240 s; up: depth 140 is above 100",
        ),
        (seen(running=90), PoolHosts(25), "down: 25 is above the maximum of 20 hosts"),
    ],
)
def test_the_reason_names_the_figures_it_was_made_of(history: DemandHistory, hosts: PoolHosts, reason: str) -> None:
    assert decide(history, hosts, POLICY, NOW).reason == reason


@pytest.mark.parametrize(
    ("history", "ready", "action"),
    [(seen(), 4, Action.HOLD), (seen(depth=101), 4, Action.UP), (seen(running=0), 4, Action.DOWN)],
)
def test_the_action_says_which_way_the_target_lies(history: DemandHistory, ready: int, action: Action) -> None:
    assert decide(history, PoolHosts(ready), POLICY, NOW).action is action


@pytest.mark.parametrize(
    ("moments", "target"),
    [
        pytest.param(
            [moment(depth=1200), *[moment(age_s=5 * i) for i in range(1, 24)]], 4, id="one sample of 24 is deep"
        ),
        pytest.param([moment(), *[moment(depth=110, age_s=5 * i) for i in range(1, 24)]], 6, id="all but one are deep"),
        pytest.param(
            [moment(), *[moment(depth=999, age_s=115 + 5 * i) for i in range(1, 9)]], 4, id="deep before that"
        ),
        pytest.param([moment(running=20), moment(running=50, age_s=60)], 4, id="a low load, and one within bounds"),
    ],
)
def test_thresholds_hold_for_the_mean_of_the_last_two_minutes(moments: list[Moment], target: int) -> None:
    assert decide(DemandHistory(tuple(moments)), PoolHosts(4), POLICY, NOW).target == target


def test_a_shorter_window_shortens_the_two_minutes_with_it() -> None:
    moments = (moment(depth=150, age_s=0), moment(age_s=4))
    assert decide(DemandHistory(moments), PoolHosts(4), POLICY, NOW).target == 4
    shorter = POLICY.model_copy(update={"window_s": 20.0})
    assert decide(DemandHistory(moments), PoolHosts(4), shorter, NOW).target == 6


def test_hosts_on_their_way_count_and_draining_ones_do_not() -> None:
    decision = decide(seen(depth=101), PoolHosts(3, requested=2, draining=4), POLICY, NOW)
    assert decision.target == 7
