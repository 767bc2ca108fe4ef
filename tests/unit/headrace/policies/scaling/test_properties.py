"""What holds for every policy and every history: bounds, stale data, pauses, order, and that demand asks for hosts."""

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from headrace.config import ScalingEvent, ScalingSettings
from headrace.domain.scaling import Action, Decision, DemandHistory, ErrorProfile, Moment, PastNeed, PoolHosts, Season
from headrace.policies.scaling.decisions import DecisionInputs, decide, from_json, replay, to_json
from headrace.policies.scaling.predictive import AFTER_UP_SHARE, DOWN_SHARE, UP_SHARE

NOW = datetime(2026, 11, 30, 8, 0, tzinfo=UTC)
POLICIES = ("predictive", "reactive", "schedule", "fixed")
JOB_TOKENS = 500
EVENTS = (
    {"name": "weekly", "weekdays": ["mon"], "from": "09:00", "to": "11:00", "zone": "Europe/Berlin", "hosts": 6},
    {"name": "launch", "starts_at": NOW + timedelta(seconds=200), "ends_at": NOW + timedelta(hours=1), "jobs_per_s": 9},
)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def moment(
    age_s: float, jobs: int = 0, depth: int = 0, running: int = 0, slots: int = 40, seconds: float = 30
) -> Moment:
    return Moment(ago(age_s), seconds, jobs, jobs * JOB_TOKENS, 0, 0, depth, depth * JOB_TOKENS, running, slots)


counts = st.integers(0, 2_000)
moments = st.builds(
    moment,
    age_s=st.integers(0, 900),
    jobs=counts,
    depth=st.integers(0, 300),
    running=st.integers(0, 100),
    slots=st.integers(0, 100),
    seconds=st.sampled_from([0.0, 5.0, 30.0]),
)
#: Every 30 s an observation, which is what a policy gets while all is well.
steady = st.lists(st.tuples(counts, st.integers(0, 300)), min_size=2, max_size=22).map(
    lambda offered: tuple(moment(30.0 * i, jobs, depth) for i, (jobs, depth) in enumerate(offered))
)
seasons = st.none() | st.lists(st.floats(0, 1e5), min_size=1, max_size=9).map(lambda rates: Season(600.0, tuple(rates)))
ratios = st.lists(st.floats(0, 4), min_size=21, max_size=21).map(lambda found: tuple(sorted(found)))
kinds = st.tuples(st.booleans(), st.sampled_from([0.0, 1.0, 2.0, 4.0, 8.0]))
errors = st.dictionaries(kinds, st.tuples(st.integers(0, 800), ratios), max_size=6).map(
    lambda found: tuple(ErrorProfile(*kind, *profile) for kind, profile in found.items())
)
needs = st.lists(st.tuples(st.integers(30, 900), st.integers(0, 30), st.integers(0, 2)), max_size=20).map(
    lambda found: tuple(PastNeed(ago(age_s), need, need + more) for age_s, need, more in found)
)
times = st.none() | st.integers(0, 900).map(ago)
histories = st.builds(
    DemandHistory,
    st.lists(moments, max_size=25).map(tuple) | steady,
    seasons,
    errors,
    needs,
    st.none() | st.integers(-300, 300).map(ago),
    st.none() | st.just(float(JOB_TOKENS)),
)
pools = st.builds(
    PoolHosts,
    ready=st.integers(0, 25),
    requested=st.integers(0, 5),
    draining=st.integers(0, 3),
    tokens_per_s=st.none() | st.floats(1, 1e6),
    slots_per_host=st.none() | st.floats(1, 256),
    provision_s=st.floats(0, 3_600),
    usd_per_hour=st.none() | st.floats(0, 100),
    spill_usd=st.none() | st.floats(0, 0.1),
    spill_tokens_per_s=st.none() | st.floats(0, 1e5),
    up_at=times,
    down_at=times,
)
settings = st.builds(
    lambda low, more, events, **values: ScalingSettings(
        min_hosts=low, max_hosts=low + more, events=tuple(map(ScalingEvent.model_validate, events)), **values
    ),
    st.integers(0, 5),
    st.integers(1, 20),
    st.lists(st.sampled_from(EVENTS), max_size=2),
    policy=st.sampled_from(POLICIES),
    fixed_hosts=st.none() | st.integers(0, 40),
    window_s=st.sampled_from([20.0, 600.0]),
    staffing_beta=st.floats(0, 4),
    refused_job_usd=st.sampled_from([Decimal(0), Decimal("0.015"), Decimal(1)]),
)


def shaped(base: int, slope: int, noise: list[int], last: int) -> tuple[Moment, ...]:
    """Ten minutes of a level or a ramp, with noise and a last minute of its own."""
    jobs = [max(0, base + slope * (len(noise) - i) + wobble) for i, wobble in enumerate(noise)]
    return tuple(moment(30.0 * i, number + last * (i < 2), number // 20) for i, number in enumerate(jobs))


#: Histories with which `predictive` decides: a shape, errors that count, and decisions for a whole window.
knowing = st.builds(
    DemandHistory,
    st.builds(
        shaped,
        st.integers(0, 300),
        st.integers(-20, 20),
        st.lists(st.integers(-30, 30), min_size=20, max_size=22),
        st.sampled_from([0, 0, 300]),
    ),
    seasons,
    st.lists(st.floats(0.2, 3).map(lambda ratio: (ratio,) * 21), min_size=10, max_size=10).map(
        lambda found: tuple(
            ErrorProfile(is_burst, above, 400, found[5 * is_burst + i])
            for is_burst in (False, True)
            for i, above in enumerate((0.0, 1.0, 2.0, 4.0, 8.0))
        )
    )
    | st.just(()),
    st.integers(0, 9).map(lambda need: tuple(PastNeed(ago(30.0 * i), need, need) for i in range(1, 21))),
    times,
    st.just(float(JOB_TOKENS)),
)
known_pools = st.builds(
    PoolHosts,
    ready=st.integers(2, 12),
    requested=st.integers(0, 1),
    tokens_per_s=st.just(1_000.0),
    slots_per_host=st.sampled_from([4.0, 20.0]),
    usd_per_hour=st.sampled_from([None, 0.5, 4.1]),
    spill_usd=st.sampled_from([None, 0.0001, 0.001, 0.015]),
    spill_tokens_per_s=st.sampled_from([None, 0.0, 2_000.0]),
)
predictive = st.builds(
    lambda beta, events: ScalingSettings(
        policy="predictive", staffing_beta=beta, events=tuple(map(ScalingEvent.model_validate, events))
    ),
    st.sampled_from([0.0, 1.0, 2.0]),
    st.lists(st.sampled_from(EVENTS), max_size=1),
)
#: Anything at all, or what `predictive` decides with.
cases = st.tuples(histories.filter(lambda history: history.moments), pools, settings) | st.tuples(
    knowing, known_pools, predictive
)
Case = tuple[DemandHistory, PoolHosts, ScalingSettings]


def never_fewer(case: Case, more: DemandHistory) -> None:
    """Check that the second history leads to no fewer hosts."""
    history, hosts, policy = case
    before, after = decide(history, hosts, policy, NOW), decide(more, hosts, policy, NOW)
    assert after.target >= before.target
    if before.need is not None and before.spare_need is not None:
        assert after.need is not None
        assert after.need >= before.need
        assert after.spare_need is not None
        assert after.spare_need >= before.spare_need


def is_stale(history: DemandHistory, policy: ScalingSettings) -> bool:
    newest = max((moment.at for moment in history.moments), default=None)
    return newest is None or (NOW - newest).total_seconds() > policy.stale_after_s


@given(histories, pools, settings)
def test_the_target_is_within_the_bounds_and_nothing_is_removed_on_stale_data(
    history: DemandHistory, hosts: PoolHosts, policy: ScalingSettings
) -> None:
    decision = decide(history, hosts, policy, NOW)
    assert decision.target >= policy.min_hosts
    if is_stale(history, policy):
        assert decision.target >= hosts.count
        assert decision.target <= max(policy.max_hosts, hosts.count)
    else:
        assert decision.target <= policy.max_hosts
    ways = {Action.UP: decision.target > hosts.count, Action.DOWN: decision.target < hosts.count}
    assert decision.action is next((action for action, is_it in ways.items() if is_it), Action.HOLD)
    assert decision.reason.startswith(f"{decision.action}: ")


odd = st.integers(0, 10**18)


@given(
    st.lists(st.builds(Moment, times.filter(bool), st.floats(0, 1e9), *[odd] * 8), max_size=9).map(tuple),
    pools,
    settings,
)
def test_absurd_observations_lead_to_a_decision_within_the_bounds(
    found: tuple[Moment, ...], hosts: PoolHosts, policy: ScalingSettings
) -> None:
    decision = decide(DemandHistory(found), hosts, policy, NOW)
    assert policy.min_hosts <= decision.target <= max(policy.max_hosts, hosts.count)
    assert (decision.need or 0) <= (decision.spare_need or 0) < 2**31


@given(histories, pools, settings, st.randoms())
def test_a_decision_does_not_depend_on_the_order_of_rows(
    history: DemandHistory, hosts: PoolHosts, policy: ScalingSettings, random: Any
) -> None:
    def shuffled(rows: Iterable[Any]) -> tuple[Any, ...]:
        found = list(rows)
        random.shuffle(found)
        return tuple(found)

    parts = {name: shuffled(getattr(history, name)) for name in ("moments", "errors", "needs")}
    assert decide(replace(history, **parts), hosts, policy, NOW) == decide(history, hosts, policy, NOW)


def more(moment: Moment, jobs: int, depth: int = 0) -> Moment:
    """This moment with more jobs of the same size."""
    return replace(
        moment,
        offered_jobs=moment.offered_jobs + jobs,
        offered_tokens=moment.offered_tokens + jobs * JOB_TOKENS,
        depth=moment.depth + depth,
        depth_tokens=moment.depth_tokens + depth * JOB_TOKENS,
    )


@given(cases, st.sampled_from([2, 3, 10]))
def test_if_all_demand_grows_in_proportion_no_fewer_hosts_are_ordered(case: Case, factor: int) -> None:
    grown = tuple(more(m, m.offered_jobs * (factor - 1)) for m in case[0].moments)
    never_fewer(case, replace(case[0], moments=grown))


#: A few more jobs, so that one rule takes over from another, or many.
extra = st.integers(0, 30) | counts


@given(cases, st.data())
def test_if_the_last_minute_brings_more_jobs_no_fewer_hosts_are_ordered(case: Case, data: st.DataObject) -> None:
    history, _, policy = case
    newest = max(m.at for m in history.moments)
    minute = timedelta(seconds=policy.window_s / 10)
    grown = tuple(more(m, data.draw(extra)) if newest - m.at < minute else m for m in history.moments)
    never_fewer(case, replace(history, moments=grown))


@given(cases, st.lists(st.integers(0, 300), min_size=25, max_size=25))
def test_if_more_jobs_wait_no_fewer_hosts_are_ordered(case: Case, waiting: list[int]) -> None:
    moments = case[0].moments
    deeper = tuple(more(m, 0, depth) for m, depth in zip(moments, waiting[: len(moments)], strict=True))
    never_fewer(case, replace(case[0], moments=deeper))


@given(cases, st.integers(0, 20), st.integers(1, 5))
def test_a_higher_need_in_the_past_keeps_no_fewer_hosts(case: Case, which: int, extra: int) -> None:
    higher = tuple(
        replace(past, need=past.need + extra, spare_need=past.spare_need + extra) if i == which else past
        for i, past in enumerate(case[0].needs)
    )
    never_fewer(case, replace(case[0], needs=higher))


@given(steady, seasons, errors, needs, settings, st.floats(0, 0.99))
def test_no_host_is_ordered_for_jobs_that_the_paid_api_answers_for_less(
    found: tuple[Moment, ...],
    season: Season | None,
    profiles: tuple[ErrorProfile, ...],
    past: tuple[PastNeed, ...],
    policy: ScalingSettings,
    share: float,
) -> None:
    policy = policy.model_copy(update={"policy": "predictive", "window_s": 600.0, "events": ()})
    # A busy host serves 7,200 jobs an hour.
    hosts = PoolHosts(3, tokens_per_s=1_000, slots_per_host=20, usd_per_hour=7.2, spill_usd=share * 0.001)
    decision = decide(
        DemandHistory((*found, moment(600, 1)), season, profiles, past, None, JOB_TOKENS), hosts, policy, NOW
    )
    if decision.forecast is not None:
        assert decision.need == 0
        assert decision.target <= max(3, policy.min_hosts)


def run(demand: Sequence[int], policy: ScalingSettings, hosts: PoolHosts) -> list[tuple[datetime, int, Decision]]:
    """Decide each 30 s, and carry each change out at once; returns the changes."""
    found: list[Moment] = []
    past: list[PastNeed] = []
    ready_at: list[datetime] = []
    changes: list[tuple[datetime, int, Decision]] = []
    burst_until = None
    for i, jobs in enumerate(demand):
        now = NOW + timedelta(seconds=30 * i)
        ready = hosts.ready + sum(at <= now for at in ready_at)
        ready_at = [at for at in ready_at if at > now]
        hosts = replace(hosts, ready=ready, requested=len(ready_at))
        found.append(replace(moment(0, jobs, jobs // 10, min(jobs, 20 * ready), 20 * ready), at=now))
        decision = decide(
            DemandHistory(tuple(found[-30:]), None, (), tuple(past[-30:]), burst_until), hosts, policy, now
        )
        burst_until = decision.burst_until
        if decision.need is not None and decision.spare_need is not None:
            past.append(PastNeed(now, decision.need, decision.spare_need))
        if decision.target > hosts.count:
            ready_at += [now + timedelta(seconds=hosts.provision_s)] * (decision.target - hosts.count)
            hosts = replace(hosts, up_at=now)
        elif decision.target < hosts.count:
            gone = hosts.count - decision.target
            ready_at = ready_at[: max(0, len(ready_at) - gone)]
            hosts = replace(hosts, ready=decision.target - len(ready_at), down_at=now)
        if decision.action is not Action.HOLD:
            changes.append((now, decision.target, decision))
    return changes


#: Jobs in 30 s: some level for some time, then another.
demands = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 40)), min_size=2, max_size=6).map(
    lambda levels: [jobs for jobs, ticks in levels for _ in range(ticks)]
)
FOUR = PoolHosts(4, tokens_per_s=1_000, slots_per_host=20, provision_s=300)


def gaps(changes: Sequence[tuple[datetime, int, Decision]]) -> list[float]:
    return [(after[0] - before[0]).total_seconds() for before, after in itertools.pairwise(changes)]


@given(demands)
def test_reactive_changes_nothing_within_its_cooldown(demand: list[int]) -> None:
    policy = ScalingSettings(policy="reactive")
    assert all(gap >= policy.cooldown_s for gap in gaps(run(demand, policy, FOUR)))


@given(demands)
def test_predictive_pauses_between_changes_unless_a_burst_begins(demand: list[int]) -> None:
    policy = ScalingSettings(policy="predictive")
    changes = [change for change in run(demand, policy, FOUR) if change[2].need is not None]
    downs = [change for change in changes if change[2].action is Action.DOWN]
    assert all(gap >= DOWN_SHARE * policy.window_s for gap in gaps(downs))
    ups = [change for change in changes if change[2].action is Action.UP]
    for before, after in itertools.pairwise(ups):
        paused = (after[0] - before[0]).total_seconds() >= UP_SHARE * policy.window_s
        assert paused or after[2].burst_until is not None
    for at, _, decision in downs:
        assert (at - NOW).total_seconds() >= 0.8 * policy.window_s
        last_up = max((up[0] for up in ups if up[0] < at), default=None)
        assert last_up is None or (at - last_up).total_seconds() >= AFTER_UP_SHARE * policy.window_s, decision


@given(histories, pools, settings)
def test_a_decision_is_computed_again_from_its_inputs(
    history: DemandHistory, hosts: PoolHosts, policy: ScalingSettings
) -> None:
    inputs = DecisionInputs(history, hosts, policy, NOW)
    read = from_json(json.loads(json.dumps(to_json(inputs))))
    assert read == inputs
    assert replay(read) == decide(history, hosts, policy, NOW)
