"""The policy `predictive`: what it orders and removes, when, and how it says so."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace.config import ScalingEvent, ScalingSettings
from headrace.domain.scaling import Action, DemandHistory, Moment, PastNeed, PoolHosts, Season
from headrace.policies.scaling.decisions import decide

NOW = datetime(2026, 11, 30, 8, 0, tzinfo=UTC)
#: 30 jobs of 100 tokens each 30 s are 100 tokens/s, which saturates one such host. Without prices, a host must be used
#: a tenth of the time, which adds 0.1 to 0.9 of a host to these loads as long as no errors of forecasts were learned.
HOSTS = PoolHosts(4, tokens_per_s=100.0, slots_per_host=20.0, provision_s=270.0)
POLICY = ScalingSettings(policy="predictive", staffing_beta=0.0)
LAUNCH = {"name": "launch", "starts_at": "2026-11-30T08:04:00Z", "ends_at": "2026-11-30T09:00:00Z"}


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def offered(jobs: Sequence[int], depth: int = 0, **changes: Any) -> DemandHistory:
    """Jobs of each 30 s, oldest first, of 100 tokens each; the queue's depth at the end."""
    newest_first = list(enumerate(reversed(jobs)))
    moments = (Moment(ago(30 * i), 30.0, n, n * 100, 0, 0, depth if i == 0 else 0, 0, 60, 80) for i, n in newest_first)
    return DemandHistory(tuple(moments), **changes)


def needed(*needs: int) -> tuple[PastNeed, ...]:
    """One need for each 30 s of the past 10 minutes, the newest first; the last one lasted."""
    return tuple(
        PastNeed(ago(30.0 * i), need, need) for i, need in enumerate([*needs, *needs[-1:] * (20 - len(needs))], 1)
    )


STEADY = [90] * 20


def with_events(*events: dict[str, Any], **changes: Any) -> ScalingSettings:
    return POLICY.model_copy(update={"events": tuple(map(ScalingEvent.model_validate, events)), **changes})


@pytest.mark.parametrize(
    ("history", "target", "reason"),
    [
        pytest.param(
            offered(STEADY), 4, "hold: 3.1 hosts needed at 08:05 for 300 tokens/s (level), 4 ready", id="enough hosts"
        ),
        pytest.param(
            offered([120] * 20), 5, "up: 4.3 hosts needed at 08:05 for 400 tokens/s (level), 4 ready", id="too few"
        ),
        pytest.param(
            offered(range(60, 120, 3)),
            6,
            "up: 5.8 hosts needed at 08:07 for 530 tokens/s (trend), 4 ready",
            id="a rise",
        ),
        pytest.param(
            offered(STEADY, season=Season(600.0, (100.0, 300.0))),
            6,
            "up: 7.8 hosts needed at 08:07 for 708 tokens/s (season), 4 ready",
            id="a season, half of the gap at first",
        ),
        pytest.param(
            offered([90] * 18 + [400] * 2),
            16,
            "up: 15.1 hosts needed at 08:07 for 1,333 tokens/s (burst), 4 ready",
            id="a burst, the whole gap at once",
        ),
        pytest.param(
            offered(STEADY, depth=60),
            4,
            "hold: 3.5 hosts needed at 08:05 for 300 tokens/s (level) and 60 waiting jobs, 4 ready",
            id="a backlog, served within three minutes",
        ),
        pytest.param(
            offered([10] * 20, depth=101),
            5,
            "up: 0.8 hosts needed at 08:05 for 33 tokens/s (level) and 101 waiting jobs, 4 ready",
            id="jobs pile up whatever the load says",
        ),
        pytest.param(
            offered([30] * 20, needs=needed(2)),
            3,
            "down: no more than 2 hosts were needed for most of 10 minutes; "
            "0.9 hosts needed at 08:05 for 100 tokens/s (level), 4 ready",
            id="too many, half of them at first",
        ),
    ],
)
def test_hosts_are_ordered_for_the_load_when_they_will_be_ready(
    history: DemandHistory, target: int, reason: str
) -> None:
    decision = decide(history, HOSTS, POLICY, NOW)
    assert (decision.target, decision.reason) == (target, reason)


def test_a_window_of_less_than_two_minutes_is_given_in_seconds() -> None:
    """In `benchmarks/autoscale_live.py`, ten minutes are 30 s."""
    long = offered([30] * 20, needs=needed(2))
    moments = tuple(replace(each, at=NOW - (NOW - each.at) / 20, seconds=1.5) for each in long.moments)
    needs = tuple(replace(each, at=NOW - (NOW - each.at) / 20) for each in long.needs)
    hosts = replace(HOSTS, tokens_per_s=2000.0, provision_s=13.5)
    decision = decide(
        replace(long, moments=moments, needs=needs), hosts, POLICY.model_copy(update={"window_s": 30}), NOW
    )
    assert decision.reason.startswith("down: no more than 2 hosts were needed for most of 30 s; 0.9 hosts needed")


def test_a_decision_carries_what_the_next_ones_and_the_comparison_need() -> None:
    decision = decide(offered([90] * 18 + [400] * 2), HOSTS, POLICY, NOW)
    assert (decision.need, decision.spare_need) == (16, 16)
    assert decision.burst_until == NOW + timedelta(seconds=300)
    assert decision.forecast is not None
    assert decision.forecast.at == NOW + timedelta(seconds=300)
    assert (decision.forecast.why, decision.forecast.is_burst) == ("burst", True)
    assert decision.forecast.tokens_per_s == pytest.approx(4000 / 3)


def test_the_maximum_is_said_where_it_is_too_low() -> None:
    decision = decide(offered([900] * 20), replace(HOSTS, ready=18, requested=2), POLICY, NOW)
    assert decision.need == 35
    assert decision.reason.endswith("18 ready, 2 on the way, at most 20 allowed")


@pytest.mark.parametrize(
    ("jobs", "ago_s", "target"),
    [([240] * 20, 119, 4), ([240] * 20, 120, 7), ([90] * 18 + [400] * 2, 1, 16)],
)
def test_an_order_waits_two_minutes_after_the_last_unless_a_burst_begins(
    jobs: list[int], ago_s: int, target: int
) -> None:
    assert decide(offered(jobs), replace(HOSTS, up_at=ago(ago_s)), POLICY, NOW).target == target


@pytest.mark.parametrize(
    ("history", "hosts", "target"),
    [
        pytest.param(offered([30] * 20, needs=needed(2)), HOSTS, 3, id="as above"),
        pytest.param(offered([30] * 20), HOSTS, 4, id="without earlier decisions"),
        pytest.param(offered([30] * 20, needs=needed(2)[:15]), HOSTS, 4, id="with those of 7.5 minutes"),
        pytest.param(offered([30] * 20, needs=needed(*[4] * 9, 2)), HOSTS, 3, id="4 needed for less than half"),
        pytest.param(offered([30] * 20, needs=needed(*[4] * 10, 2)), HOSTS, 4, id="4 needed for most of the window"),
        pytest.param(offered([30] * 20, needs=needed(2)), replace(HOSTS, down_at=ago(149)), 4, id="2.5 minutes pause"),
        pytest.param(offered([30] * 20, needs=needed(2)), replace(HOSTS, down_at=ago(150)), 3, id="and over"),
        pytest.param(offered([30] * 20, needs=needed(2)), replace(HOSTS, up_at=ago(299)), 4, id="5 after an order"),
        pytest.param(offered([30] * 20, needs=needed(2)), replace(HOSTS, up_at=ago(300)), 3, id="and over again"),
        pytest.param(offered([30] * 20, needs=needed(2)), replace(HOSTS, ready=3, requested=1), 4, id="one on its way"),
        pytest.param(offered([30] * 20, depth=5, needs=needed(2)), HOSTS, 4, id="more jobs wait than hosts are ready"),
        pytest.param(
            offered([30] * 20, needs=needed(2), season=Season(600.0, (100.0, 100.0, 700.0))),
            HOSTS,
            4,
            id="a rise ahead",
        ),
    ],
)
def test_a_host_is_removed_when_it_is_safe(history: DemandHistory, hosts: PoolHosts, target: int) -> None:
    assert decide(history, hosts, POLICY, NOW).target == target


@pytest.mark.parametrize(
    ("event", "now_s", "target", "why"),
    [
        pytest.param({"hosts": 9}, 0, 9, "event 'launch' needs 9 hosts", id="hosts, all at once"),
        pytest.param({"jobs_per_s": 9}, 0, 9, "event 'launch' needs 9 hosts", id="a rate of 900 tokens/s"),
        # It counts from the provisioning time before its start on, with 2.5 minutes to spare.
        pytest.param({"hosts": 9}, -181, 4, "3.1 hosts needed", id="too early"),
        pytest.param({"hosts": 9}, -180, 9, "event 'launch' needs 9 hosts", id="just in time"),
    ],
)
def test_an_announced_event_is_ready_for(event: dict[str, Any], now_s: int, target: int, why: str) -> None:
    now = NOW + timedelta(seconds=now_s)
    moments = tuple(replace(moment, at=moment.at + timedelta(seconds=now_s)) for moment in offered(STEADY).moments)
    decision = decide(DemandHistory(moments), replace(HOSTS, up_at=now), with_events({**LAUNCH, **event}), now)
    assert decision.target == target
    assert why in decision.reason


@pytest.mark.parametrize(
    ("history", "hosts", "lacking"),
    [
        (offered(STEADY[:7]), HOSTS, "210 of 240 s are observed"),
        (offered(STEADY), replace(HOSTS, tokens_per_s=None), "the rate of a host is unknown"),
        (offered(STEADY), replace(HOSTS, slots_per_host=None), "the slots of a host are unknown"),
    ],
)
def test_while_too_little_is_known_thresholds_decide(history: DemandHistory, hosts: PoolHosts, lacking: str) -> None:
    decision = decide(history, hosts, POLICY, NOW)
    assert decision.reason == f"hold: depth 0 and load 0.75 are within bounds (thresholds decide: {lacking})"
    assert (decision.need, decision.forecast) == (None, None)
    launch = with_events({**LAUNCH, "hosts": 9})
    assert decide(history, hosts, launch, NOW).reason == "up: event 'launch' needs 9 hosts: 4 to 9 hosts"


def test_stale_observations_hold() -> None:
    late = NOW + timedelta(seconds=61)
    decision = decide(offered([900] * 20, needs=needed(2)), HOSTS, POLICY, late)
    assert (decision.action, decision.need) == (Action.HOLD, None)
    assert decision.reason == "hold: the newest sample is 61 s old, more than 60 s"


@pytest.mark.parametrize(
    ("changes", "need"),
    [
        pytest.param({"spill_usd": 0.015}, 9, id="the paid API is dear"),
        # A busy host serves 3,600 jobs an hour for 4.41 USD, its start included: 0.00122 USD each.
        pytest.param({"spill_usd": 0.0012}, 0, id="it is cheaper than a host"),
        pytest.param({"spill_usd": 0.0012, "spill_tokens_per_s": 500.0}, 5, id="it is cheaper, and takes half"),
    ],
)
def test_prices_decide_what_goes_to_the_paid_api(changes: dict[str, Any], need: int) -> None:
    hosts = replace(HOSTS, usd_per_hour=4.1, **changes)
    decision = decide(offered([240] * 20), hosts, POLICY, NOW)
    assert decision.need == need
    assert ("a host costs more than the jobs" in decision.reason) is (changes["spill_usd"] < 0.0125)


@pytest.mark.parametrize(
    ("jobs", "changes", "need"),
    [
        pytest.param([0] * 19 + [1], {}, 1, id="any job needs a host"),
        pytest.param([0] * 20, {}, 0, id="no job"),
        pytest.param([0] * 19 + [1], {"spill_usd": 0.015, "usd_per_hour": 4.1}, 0, id="the paid API takes it"),
    ],
)
def test_a_pool_may_have_no_host_while_it_has_no_jobs(jobs: list[int], changes: dict[str, Any], need: int) -> None:
    policy = POLICY.model_copy(update={"min_hosts": 0})
    history = offered(jobs, needs=needed(0), tokens_per_job=100.0)
    decision = decide(history, replace(HOSTS, ready=1, **changes), policy, NOW)
    assert (decision.need, decision.target) == (need, need)


@pytest.mark.parametrize("prices", [{}, {"spill_usd": 0.00122, "usd_per_hour": 4.1}])
@pytest.mark.parametrize("jobs", [STEADY, [240] * 20, [90] * 18 + [400] * 2, range(60, 120, 3), [30] * 20])
def test_all_times_shrink_with_the_window(jobs: Sequence[int], prices: dict[str, float]) -> None:
    """A window of 20 s with an observation each second decides as one of 10 minutes with one each 30 s."""

    def shrunk(at: datetime) -> datetime:
        return NOW + (at - NOW) / 30

    history, hosts = offered(jobs, needs=needed(2)), replace(HOSTS, up_at=ago(330), down_at=ago(180), **prices)
    normal = decide(history, hosts, POLICY, NOW)
    moments = tuple(replace(moment, at=shrunk(moment.at), seconds=1.0) for moment in history.moments)
    past = tuple(replace(need, at=shrunk(need.at)) for need in history.needs)
    # As many jobs in a second as in 30 s, on hosts that serve 30 times as much for 30 times the price.
    prices = {name: value * (30 if name == "usd_per_hour" else 1) for name, value in prices.items()}
    fast_hosts = replace(hosts, tokens_per_s=3_000.0, provision_s=9.0, **prices)
    fast_hosts = replace(fast_hosts, up_at=shrunk(ago(330)), down_at=shrunk(ago(180)))
    fast = decide(DemandHistory(moments, needs=past), fast_hosts, with_events(window_s=20.0), NOW)
    assert (fast.target, fast.need, fast.spare_need) == (normal.target, normal.need, normal.spare_need)


def test_an_absurd_load_needs_a_number_that_postgres_can_hold() -> None:
    decision = decide(offered([10**15] * 20), replace(HOSTS, tokens_per_s=0.001), POLICY, NOW)
    assert (decision.target, decision.need, decision.spare_need) == (12, 1_000_000, 1_000_000)
