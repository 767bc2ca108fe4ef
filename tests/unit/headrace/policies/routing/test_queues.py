from decimal import Decimal
from typing import Any

import pytest

from headrace.config import LaneSettings, OverflowSettings, Price, Settings
from headrace.domain.ids import new_id
from headrace.domain.jobs import JobSpec
from headrace.domain.limits.budgets import Budget, NoBudget, Shortfall
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Lane, Overflow, Route
from headrace.errors import BudgetExceeded, GoalMissed, InvalidRequest
from headrace.policies.pricing import Tariff
from headrace.policies.routing import Conditions, Pressure, candidates, route_of, spill_reason

PRICE = Price(input_usd_per_mtok=Decimal("0.15"), output_usd_per_mtok=Decimal("0.60"), source="test", version="v1")
PRICED = Tariff.of(Settings(prices={"gpt-4o-mini": PRICE}))
UNPRICED = Tariff.of(Settings().model_copy(update={"prices": {}}))
CAPS = {"chat": LaneSettings(depth_cap=7, backlog_cap_tokens=900), "overflow": LaneSettings(depth_cap=5)}
LANE = CAPS.__getitem__
#: What each queue drains in time; of `overflow`, nobody knows.
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
