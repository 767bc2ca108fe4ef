from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from headrace.config import LaneSettings, OverflowSettings, Price, Settings
from headrace.config.rules import RuleSettings
from headrace.domain.ids import new_id
from headrace.domain.jobs import JobSpec
from headrace.domain.limits import Budget, NoBudget, Shortfall
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Lane, Overflow, Route
from headrace.errors import BudgetExceeded, GoalMissed, InvalidRequest
from headrace.policies.pricing import Tariff
from headrace.policies.routing import (
    Conditions,
    LatencyGoal,
    Offer,
    Pressure,
    Traits,
    candidates,
    cheapest_first,
    is_sampled,
    matching,
    offer_reason,
    route_of,
    shadow_pool,
    spill_reason,
)

PRICE = Price(input_usd_per_mtok=Decimal("0.15"), output_usd_per_mtok=Decimal("0.60"), source="test", version="v1")
PRICED = Tariff.of(Settings(prices={"gpt-4o-mini": PRICE}))
UNPRICED = Tariff.of(Settings().model_copy(update={"prices": {}}))
CAPS = {"chat": LaneSettings(depth_cap=7, backlog_cap_tokens=900), "overflow": LaneSettings(depth_cap=5)}
LANE = CAPS.__getitem__
#: What each queue drains in time; for `overflow` it is not known.
AHEAD = {"chat.low": 300}


def spec(**changes: Any) -> JobSpec:
    values: dict[str, Any] = {
        "id": new_id(),
        "app_id": new_id(),
        "model": "m",
        "pool": "chat",
        "lane": Lane.LOW,
        # A million tokens at most, and 144 for what the provider adds.
        "messages": (Message("user", "hi" * 500_000),),
        "sampling": Sampling(max_tokens=1_000_000),
        "prompt_tokens": 250_000,
        "max_wait_s": 30,
    }
    return JobSpec(**{**values, **changes})


@pytest.mark.parametrize(
    ("overflow", "tariff", "api_is_open", "max_cost_usd", "queues"),
    [
        (Overflow.ALLOW, PRICED, True, None, ["chat.low", "overflow.low"]),
        (Overflow.ALLOW, PRICED, False, None, ["chat.low"]),
        (Overflow.ALLOW, UNPRICED, True, None, ["chat.low"]),
        (Overflow.ALLOW, PRICED, True, "0.7500216", ["chat.low", "overflow.low"]),
        (Overflow.ALLOW, PRICED, True, "0.7500215", ["chat.low"]),
        (Overflow.NEVER, PRICED, True, None, ["chat.low"]),
        (Overflow.ONLY, PRICED, True, None, ["overflow.low"]),
    ],
)
def test_candidates_are_those_the_owner_the_price_and_the_key_allow(
    overflow: Overflow, tariff: Tariff, api_is_open: bool, max_cost_usd: str | None, queues: list[str]
) -> None:
    job = spec(overflow=overflow, max_cost_usd=max_cost_usd and Decimal(max_cost_usd))

    found = candidates(
        job, LANE, tariff, Conditions(ahead_cap_tokens=AHEAD.get, free_until=len, api_is_open=api_is_open)
    )

    assert [each.queue for each in found] == queues
    caps = [CAPS[queue.partition(".")[0]] for queue in queues]
    assert [(each.depth_cap, each.backlog_cap_tokens) for each in found] == [
        (each.depth_cap, each.backlog_cap_tokens) for each in caps
    ]
    assert all(each.reason for each in found)
    assert [each.ahead_cap_tokens for each in found] == [AHEAD.get(queue) for queue in queues]
    assert [each.free_until for each in found] == [len(queue) for queue in queues]


@pytest.mark.parametrize(
    ("tariff", "api_is_open", "reason"), [(PRICED, False, "OPENAI_API_KEY"), (UNPRICED, True, "gpt-4o-mini")]
)
def test_job_that_insists_on_a_closed_overflow_is_told_why(tariff: Tariff, api_is_open: bool, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as error:
        candidates(
            spec(overflow=Overflow.ONLY),
            LANE,
            tariff,
            Conditions(ahead_cap_tokens=AHEAD.get, free_until=len, api_is_open=api_is_open),
        )

    assert error.value.param == "overflow"


def lacking(usd: Decimal) -> Shortfall:
    return Shortfall(Budget(is_own=True, period="day"), Decimal("0.5"), Decimal("0.5") - usd / 1000)


def test_a_job_that_there_is_no_money_for_goes_to_its_own_pool_alone() -> None:
    found = candidates(
        spec(), LANE, PRICED, Conditions(ahead_cap_tokens=AHEAD.get, free_until=len, api_is_open=True, lacking=lacking)
    )

    assert [each.queue for each in found] == ["chat.low"]


def test_without_a_budget_the_paid_api_is_shut() -> None:
    def none(_: Decimal) -> NoBudget:
        return NoBudget()

    options: dict[str, Any] = {"ahead_cap_tokens": AHEAD.get, "free_until": len, "api_is_open": True, "lacking": none}
    assert [each.queue for each in candidates(spec(), LANE, PRICED, Conditions(**options))] == ["chat.low"]
    with pytest.raises(BudgetExceeded, match="no budget is set"):
        candidates(spec(overflow=Overflow.ONLY), LANE, PRICED, Conditions(**options))


def test_a_job_that_insists_on_an_overflow_without_money_is_told_which_budget_it_is() -> None:
    only = spec(overflow=Overflow.ONLY)
    with pytest.raises(BudgetExceeded, match=r"this app's budget, 0\.5 USD a day") as error:
        candidates(
            only,
            LANE,
            PRICED,
            Conditions(ahead_cap_tokens=AHEAD.get, free_until=len, api_is_open=True, lacking=lacking),
        )

    assert (error.value.reason, error.value.retry_after_s) == ("budget", None)


@pytest.mark.parametrize(
    ("jobs", "kv_use", "is_on", "reason"),
    [
        (199, None, False, None),
        (200, None, False, "deep"),
        (160, None, True, "deep"),
        (159, None, True, None),
        (7, 1.0, False, None),
        (8, 0.85, False, "cache"),
        (8, 0.84, False, None),
        (7, 0.68, True, "cache"),
        (7, 0.67, True, None),
        (6, 1.0, True, None),
    ],
)
def test_a_queue_is_relieved_while_it_is_deep_or_its_pool_full_and_behind(
    jobs: int, kv_use: float | None, is_on: bool, reason: str | None
) -> None:
    found = spill_reason(Pressure(jobs, slots=8, kv_use=kv_use), OverflowSettings(), is_on=is_on)

    assert (found is None) == (reason is None)
    assert found is None or f"own {reason}" in found or f"own queue {reason}" in found


@pytest.mark.parametrize(
    ("jobs", "free", "is_on", "spills"), [(263, 64, False, False), (264, 64, False, True), (223, 64, True, False)]
)
def test_nothing_spills_for_depth_while_own_gpus_idle(jobs: int, free: int, is_on: bool, spills: bool) -> None:
    pressure = Pressure(jobs, slots=64, kv_use=None, free=free)

    assert (spill_reason(pressure, OverflowSettings(), is_on=is_on) is not None) is spills


@pytest.mark.parametrize(
    ("jobs", "slots", "free", "is_on", "spills"),
    [
        (8, 8, 0, False, True),  # a whole batch waits before the next job
        (7, 8, 0, False, False),
        (12, 8, 4, False, True),
        (11, 8, 4, False, False),  # own GPUs idle: they are paid for anyway
        (0, 8, 8, False, False),
        (7, 8, 0, True, True),
        (6, 8, 0, True, False),
        (0, 0, 0, False, True),  # there is no host, and none will be added
    ],
)
def test_jobs_spill_early_where_the_paid_api_is_cheaper_than_another_host(
    jobs: int, slots: int, free: int, is_on: bool, spills: bool
) -> None:
    pressure = Pressure(jobs, slots, None, free)
    reason = spill_reason(pressure, OverflowSettings(), is_on=is_on, is_cheaper=True)

    assert (reason is not None) is spills
    assert reason is None or "the paid API is cheaper than another host" in reason
    assert spill_reason(pressure, OverflowSettings(), is_on=is_on) is None, "not for jobs that it is dearer for"


def test_a_pool_without_workers_is_not_relieved_for_a_cache_that_nobody_uses() -> None:
    assert spill_reason(Pressure(0, slots=0, kv_use=0.9), OverflowSettings(), is_on=False) is None


@pytest.mark.parametrize(
    ("overflow", "api_is_open", "queues"),
    [
        (Overflow.ALLOW, True, ["overflow.low", "chat.low"]),
        (Overflow.ALLOW, False, ["chat.low"]),
        (Overflow.NEVER, True, ["chat.low"]),
        (Overflow.ONLY, True, ["overflow.low"]),
    ],
)
def test_overflow_comes_first_where_it_brings_relief(overflow: Overflow, api_is_open: bool, queues: list[str]) -> None:
    found = candidates(
        spec(overflow=overflow),
        LANE,
        PRICED,
        Conditions(ahead_cap_tokens=AHEAD.get, free_until=len, api_is_open=api_is_open, spill_reason="own queue deep"),
    )

    assert [each.queue for each in found] == queues
    assert found[0].reason == ("own queue deep" if len(queues) == 2 else found[0].reason)


@pytest.mark.parametrize(
    ("overflow", "api_is_open", "queues"),
    [
        (Overflow.ALLOW, True, ["overflow.low"]),
        (Overflow.ALLOW, False, None),
        (Overflow.NEVER, True, None),
        (Overflow.ONLY, True, ["overflow.low"]),
    ],
)
def test_a_job_that_its_pool_answers_too_late_is_spilled_or_refused_at_once(
    overflow: Overflow, api_is_open: bool, queues: list[str] | None
) -> None:
    now = Conditions(AHEAD.get, len, api_is_open=api_is_open, miss_reason="latency goal: 9 s")
    if queues is None:
        with pytest.raises(GoalMissed, match="Refused for the latency goal: 9 s") as raised:
            candidates(spec(overflow=overflow), LANE, PRICED, now)
        assert (raised.value.reason, raised.value.retry_after_s) == ("latency_goal", None)
        return

    found = candidates(spec(overflow=overflow), LANE, PRICED, now)

    assert [each.queue for each in found] == queues
    assert found[0].reason == ("overflow only" if overflow is Overflow.ONLY else "latency goal: 9 s")


def test_queue_tells_its_route() -> None:
    assert (route_of("overflow.high"), route_of("chat.high")) == (Route.OVERFLOW, Route.POOL)


@pytest.mark.parametrize("overflow", [Overflow.ALLOW, Overflow.ONLY])
def test_the_paid_api_is_the_only_way_where_a_pool_has_no_workers(overflow: Overflow) -> None:
    job = spec(overflow=overflow)
    found = candidates(
        job, LANE, PRICED, Conditions(ahead_cap_tokens=AHEAD.get, free_until=len, api_is_open=True, has_workers=False)
    )

    assert [(each.queue, each.reason) for each in found] == [("overflow.low", "no pool of its own")]


@pytest.mark.parametrize(
    ("changes", "error", "param"),
    [
        ({"overflow": Overflow.NEVER}, InvalidRequest, "overflow"),
        ({"max_cost_usd": Decimal("0.1")}, InvalidRequest, "max_cost_usd"),
        ({}, BudgetExceeded, None),
    ],
    ids=["never", "too dear", "no money"],
)
def test_a_job_whose_only_way_is_closed_is_refused_by_the_field_that_closes_it(
    changes: dict[str, Any], error: type[Exception], param: str | None
) -> None:
    with pytest.raises(error) as raised:
        candidates(
            spec(**changes),
            LANE,
            PRICED,
            Conditions(
                ahead_cap_tokens=AHEAD.get, free_until=len, api_is_open=True, has_workers=False, lacking=lacking
            ),
        )

    assert raised.value.param == param


def test_a_job_that_may_not_leave_a_pool_without_workers_learns_where_to_allow_it() -> None:
    now = Conditions(ahead_cap_tokens=AHEAD.get, free_until=len, api_is_open=True, has_workers=False)
    with pytest.raises(InvalidRequest, match="leave 'overflow' out,"):
        candidates(spec(overflow=Overflow.NEVER), LANE, PRICED, now)


# Within how long a job must start, and when no start is soon enough.


@pytest.mark.parametrize(
    ("run_s", "start_within_s", "misses"),
    [(None, 1.6, False), (0.5, 1.1, False), (1.59, 0.01, False), (1.61, 0.0, True), (33.0, 0.0, True)],
)
def test_what_a_job_will_run_is_taken_off_what_is_planned_of_the_goal(
    run_s: float | None, start_within_s: float, misses: bool
) -> None:
    goal = LatencyGoal("fast", 2.0, run_s)

    assert goal.start_within_s == pytest.approx(start_within_s)
    assert (goal.miss_reason is not None) is misses


def test_a_miss_is_told_with_both_times_and_the_pool() -> None:
    assert LatencyGoal("fast", 2.5, 33.04).miss_reason == (
        "latency goal: the answer would take about 33.0 s, and pool 'fast' accepts up to 2 s, 80% of its goal of 2.5 s"
    )


# Which rule matches a job of the model `auto`, and which pool of it costs least.

JOB = Traits("shop", "classify", 100, wants_json=False, output_tokens={"fast": 20, "chat": 30}.__getitem__)


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ({}, True),
        ({"apps": {"shop", "mail"}}, True),
        ({"apps": {"mail"}}, False),
        ({"tasks": {"classify"}}, True),
        ({"tasks": {"summarise"}}, False),
        ({"max_prompt_chars": 100}, True),
        ({"max_prompt_chars": 99}, False),
        ({"max_output_tokens": 20}, True),
        ({"max_output_tokens": 19}, False),
        ({"wants_json": False}, True),
        ({"wants_json": True}, False),
        ({"apps": {"shop"}, "tasks": {"classify"}, "max_prompt_chars": 99}, False),
    ],
)
def test_a_rule_matches_if_all_that_it_names_do(rule: dict[str, Any], matches: bool) -> None:
    rules = {"one": RuleSettings(pools=("fast", "chat"), **rule)}

    assert (matching(rules, JOB) is not None) is matches


def test_a_job_without_a_task_matches_no_rule_of_tasks() -> None:
    rules = {"one": RuleSettings(pools=("fast",), tasks=frozenset({"classify"}))}
    assert matching(rules, replace(JOB, task=None)) is None


def test_the_first_rule_that_matches_decides() -> None:
    rules = {
        name: RuleSettings(pools=("fast",), max_prompt_chars=chars)
        for name, chars in (("a", 9), ("b", 100), ("c", 200))
    }

    found = matching(rules, JOB)

    assert found == ("b", rules["b"])


def test_free_slots_cost_nothing_and_then_the_price_decides() -> None:
    idle, dear_idle = Offer("fast", Decimal(2), is_idle=True), Offer("chat", Decimal(3), is_idle=True)
    paid, busy, unknown = Offer("paid", Decimal(1)), Offer("busy", Decimal(5)), Offer("unpriced", None)

    ranked = cheapest_first([unknown, dear_idle, busy, paid, idle])

    assert [each.pool for each in ranked] == ["fast", "chat", "paid", "busy", "unpriced"]


def test_of_equal_offers_the_first_comes_first() -> None:
    same = [Offer(pool, Decimal(1)) for pool in ("b", "a", "c")]
    assert [each.pool for each in cheapest_first(same)] == ["b", "a", "c"]


def test_a_reason_says_the_rule_and_why_this_pool() -> None:
    assert offer_reason("short", Offer("fast", Decimal(1), is_idle=True), []) == "rule 'short': fast has free slots"
    assert offer_reason("short", Offer("fast", Decimal(1)), []) == "rule 'short': fast costs least"
    assert offer_reason("short", Offer("chat", None), ["fast"]) == "rule 'short': chat, after fast had no place"


# Which jobs have a shadow, and where it runs.


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_about_the_share_of_all_jobs_is_in_the_sample(share: float) -> None:
    ids = [new_id() for _ in range(4000)]
    sampled = [job_id for job_id in ids if is_sampled(job_id, share)]
    assert abs(len(sampled) / len(ids) - share) < 0.04
    assert all(is_sampled(job_id, share) for job_id in sampled), "a job's id decides"


def test_none_and_all_are_shares_too() -> None:
    ids = [new_id() for _ in range(200)]
    assert not any(is_sampled(job_id, 0.0) for job_id in ids)
    assert all(is_sampled(job_id, 1.0) for job_id in ids)


def test_the_next_pool_of_the_rule_answers_too_and_for_the_last_the_one_before() -> None:
    rule = RuleSettings(pools=("small", "middle", "large"))
    assert [shadow_pool(rule, pool) for pool in (*rule.pools, "gone")] == ["middle", "large", "middle", None]
    assert shadow_pool(RuleSettings(pools=("small",)), "small") is None
    assert shadow_pool(RuleSettings(pools=("small", "small")), "small") is None
