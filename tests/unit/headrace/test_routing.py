from decimal import Decimal
from typing import Any

import pytest

from headrace.config import LaneSettings, Price, Settings
from headrace.errors import InvalidRequest
from headrace.jobs import JobSpec, Lane, Message, Overflow, Route, Sampling, new_id
from headrace.pricing import Tariff
from headrace.routing import candidates, route_of

PRICE = Price(input_usd_per_mtok=Decimal("0.15"), output_usd_per_mtok=Decimal("0.60"), source="test", version="v1")
PRICED = Tariff.of(Settings(prices={"gpt-4o-mini": PRICE}))
UNPRICED = Tariff.of(Settings().model_copy(update={"prices": {}}))
LANE = LaneSettings(depth_cap=7, backlog_cap_tokens=900)
#: What each queue drains in time; of `overflow`, nobody knows.
AHEAD = {"chat.low": 300}


def spec(**changes: Any) -> JobSpec:
    values: dict[str, Any] = {
        "id": new_id(),
        "app_id": new_id(),
        "model": "m",
        "pool": "chat",
        "lane": Lane.LOW,
        "messages": (Message("user", "hi"),),
        "sampling": Sampling(max_tokens=1_000_000),
        "prompt_tokens": 1_000_000,
        "max_wait_s": 30,
    }
    return JobSpec(**{**values, **changes})


@pytest.mark.parametrize(
    ("overflow", "tariff", "api_is_open", "max_cost_usd", "queues"),
    [
        (Overflow.ALLOW, PRICED, True, None, ["chat.low", "overflow.low"]),
        (Overflow.ALLOW, PRICED, False, None, ["chat.low"]),
        (Overflow.ALLOW, UNPRICED, True, None, ["chat.low"]),
        (Overflow.ALLOW, PRICED, True, "0.75", ["chat.low", "overflow.low"]),
        (Overflow.ALLOW, PRICED, True, "0.74", ["chat.low"]),
        (Overflow.NEVER, PRICED, True, None, ["chat.low"]),
        (Overflow.ONLY, PRICED, True, None, ["overflow.low"]),
    ],
)
def test_candidates_are_those_the_owner_the_price_and_the_key_allow(
    overflow: Overflow, tariff: Tariff, api_is_open: bool, max_cost_usd: str | None, queues: list[str]
) -> None:
    job = spec(overflow=overflow, max_cost_usd=max_cost_usd and Decimal(max_cost_usd))

    found = candidates(job, LANE, tariff, ahead_cap_tokens=AHEAD.get, free_until=len, api_is_open=api_is_open)

    assert [each.queue for each in found] == queues
    assert all((each.depth_cap, each.backlog_cap_tokens) == (7, 900) and each.reason for each in found)
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
            ahead_cap_tokens=AHEAD.get,
            free_until=len,
            api_is_open=api_is_open,
        )

    assert error.value.param == "overflow"


def test_queue_tells_its_route() -> None:
    assert (route_of("overflow.high"), route_of("chat.high")) == (Route.OVERFLOW, Route.POOL)
