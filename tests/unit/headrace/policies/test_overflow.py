from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from headrace.config import Price, Settings
from headrace.domain.apps import AppLimits
from headrace.domain.ids import new_id
from headrace.domain.jobs import JobSpec
from headrace.domain.limits import Account, Balances, Budget, Lack, NoBudget, Shortfall, SpendingLimits
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Lane, Overflow
from headrace.policies.overflow import Objection, Quote, Wallet, quote
from headrace.policies.pricing import Tariff

PRICE = Price(input_usd_per_mtok=Decimal("0.15"), output_usd_per_mtok=Decimal("0.60"), source="test", version="v1")
PRICED = Tariff.of(Settings(prices={"gpt-4o-mini": PRICE}))
UNPRICED = Tariff.of(Settings().model_copy(update={"prices": {}}))
#: It costs 0.7500216 USD at most: a million tokens each way, and 144 for what the provider adds.
JOB = JobSpec(
    id=new_id(),
    app_id=new_id(),
    model="m",
    pool="chat",
    lane=Lane.LOW,
    messages=(Message("user", "hi" * 500_000),),
    sampling=Sampling(max_tokens=1_000_000),
    prompt_tokens=250_000,
    max_wait_s=30,
)
MOST_USD = Decimal("0.7500216")


def test_a_quote_is_the_most_that_the_call_can_cost() -> None:
    assert quote(JOB, PRICED) == Quote(MOST_USD)
    assert quote(replace(JOB, max_cost_usd=MOST_USD), PRICED) == Quote(MOST_USD)


@pytest.mark.parametrize(
    ("changes", "tariff", "is_set_up", "code"),
    [
        ({"overflow": Overflow.NEVER}, PRICED, False, "overflow_not_allowed"),
        ({"max_cost_usd": Decimal("0.1")}, UNPRICED, False, "overflow_not_set_up"),
        ({"max_cost_usd": Decimal("0.1")}, UNPRICED, True, "unknown_price"),
        ({"max_cost_usd": Decimal("0.1")}, PRICED, True, "too_dear"),
        ({}, PRICED, True, "budget_exceeded"),
    ],
)
def test_the_first_rule_that_closes_the_paid_api_is_the_reason(
    changes: dict[str, Any], tariff: Tariff, is_set_up: bool, code: str
) -> None:
    found = quote(replace(JOB, **changes), tariff, lambda _: NoBudget(), is_set_up=is_set_up)
    assert isinstance(found, Objection)
    assert found.code == code
    assert (found.lack is not None) == (code == "budget_exceeded")


def test_a_budget_is_asked_for_the_whole_price() -> None:
    asked: list[Decimal] = []

    def lacking(usd: Decimal) -> Lack | None:
        asked.append(usd)
        return None

    assert quote(JOB, PRICED, lacking) == Quote(MOST_USD)
    assert asked == [MOST_USD]


ONE = Decimal(1)
OWN = AppLimits(day_usd=Decimal(5))
NO_LIMITS = SpendingLimits(None, None)
TOGETHER = SpendingLimits(Decimal(7), None)


def balances(together: SpendingLimits, **spent: str) -> Balances:
    return Balances(
        together,
        [Account(new_id(), app, "day", datetime.now(UTC), ONE, Decimal(usd), None) for app, usd in spent.items()],
    )


def test_what_is_used_and_what_was_promised_count_together() -> None:
    wallet, held = Wallet(), balances(NO_LIMITS, shop="2")
    wallet.promise("shop", ONE)
    assert wallet.lacking(ONE, "shop", OWN, held) is None
    wallet.promise("shop", ONE)
    found = wallet.lacking(ONE, "shop", OWN, held)
    assert isinstance(found, Shortfall)
    assert (found.budget, found.left_usd) == (Budget(is_own=True, period="day"), Decimal(0))


def test_another_app_s_promise_counts_for_all_apps_together_alone() -> None:
    wallet = Wallet()
    wallet.promise("other", Decimal(6))
    assert wallet.lacking(ONE, "shop", OWN, balances(TOGETHER)) is None
    wallet.promise("other", ONE)
    found = wallet.lacking(ONE, "shop", OWN, balances(TOGETHER))
    assert isinstance(found, Shortfall)
    assert not found.budget.is_own


def test_a_promise_ends_once_it_is_too_old() -> None:
    now_s = 0.0
    wallet = Wallet(2.0, lambda: now_s)
    wallet.promise("shop", Decimal(5))
    assert wallet.lacking(ONE, "shop", OWN, balances(NO_LIMITS)) is not None
    now_s = 2.5
    assert wallet.lacking(ONE, "shop", OWN, balances(NO_LIMITS)) is None


def test_jobs_that_wait_count_at_the_mean_of_the_promises() -> None:
    wallet = Wallet()
    wallet.promise("other", Decimal(2))
    assert wallet.lacking(ONE, "shop", OWN, balances(TOGETHER), waiting=3) is None
    assert wallet.lacking(ONE, "shop", OWN, balances(TOGETHER), waiting=4) is not None


def test_without_a_budget_nothing_is_paid() -> None:
    assert Wallet().lacking(ONE, "shop", AppLimits(), balances(NO_LIMITS)) == NoBudget()
