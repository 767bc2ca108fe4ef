"""The bill of an attempt: charged is what was sent, what compression saved is told beside it, and what went wrong."""

from dataclasses import replace
from decimal import Decimal

import pytest

from headrace.config import PoolSettings, Price, Settings
from headrace.domain.attempts import Claim, Usage
from headrace.domain.prompts import Message
from headrace.domain.queues import Route
from headrace.errors import PromptRejected
from headrace.policies.pricing import Tariff
from tests.unit.workers.running import claims
from workers.engines.base import Generation
from workers.running.bill import Answered, Bill

PRICE = Price(input_usd_per_mtok=Decimal(2), output_usd_per_mtok=Decimal(8), source="test", version="v1")
CLAIM = replace(
    claims.CLAIM,
    pool="chat",
    model="m",
    prompt_tokens=1000,
    messages=(Message("user", "x" * 900), Message("user", "why?")),
)
COMPRESSED = replace(CLAIM, compressed=(Message("user", "x" * 448), Message("user", "why?")))


def bill(route: Route, claim: Claim, usage: Usage) -> tuple[int | None, Decimal | None, Decimal]:
    """The original tokens, what was saved, and what is charged."""
    settings = Settings(pools={"chat": PoolSettings(model="m", price=PRICE)}, prices={"gpt-4o-mini": PRICE})
    end = Bill(Tariff.of(settings), route, "host").of(
        Answered(claim, Generation("a", usage, "stop", "m"), 1.0), "succeeded"
    )
    return end.original_tokens, end.saved_usd, end.cost.usd


def test_an_own_pool_counted_the_original_at_the_door() -> None:
    assert bill(Route.POOL, COMPRESSED, Usage(600, 0)) == (1000, Decimal("0.0008"), Decimal("0.0012"))


def test_at_the_paid_api_the_original_is_estimated_from_its_own_count() -> None:
    # 904 bytes for 452: the same text has twice the tokens.
    assert bill(Route.OVERFLOW, COMPRESSED, Usage(500, 0)) == (1000, Decimal("0.001"), Decimal("0.001"))


def test_a_paid_call_of_no_use_costs_what_the_api_counted_and_else_its_reserved_maximum() -> None:
    settings = Settings(pools={"chat": PoolSettings(model="m", price=PRICE)}, prices={"gpt-4o-mini": PRICE})
    of, claim = Bill(Tariff.of(settings), Route.OVERFLOW, "host"), replace(CLAIM, reserved_usd=Decimal(9))
    error = PromptRejected("withheld")
    error.may_be_billed = True
    unknown = of.of_failure(claim, error, 1.0)
    error.billed_tokens = (1000, 0, 0, 0)
    known = of.of_failure(claim, error, 1.0)
    assert (unknown.cost.usd, unknown.estimated, unknown.usage) == (Decimal(9), True, Usage())
    assert (known.cost.usd, known.estimated, known.usage) == (Decimal("0.002"), False, Usage(1000, 0))
    assert (known.kind, known.error_code, known.error_message) == ("waste", "prompt_rejected", "withheld")


@pytest.mark.parametrize("route", list(Route))
def test_a_prompt_that_was_not_compressed_saved_nothing(route: Route) -> None:
    assert bill(route, CLAIM, Usage(1000, 0)) == (None, None, Decimal("0.002"))
