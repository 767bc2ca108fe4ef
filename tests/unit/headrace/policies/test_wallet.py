from datetime import UTC, datetime
from decimal import Decimal

from headrace.domain.apps import AppLimits
from headrace.domain.ids import new_id
from headrace.domain.limits.budgets import Account, Balances, Budget, NoBudget, Shortfall, SpendingLimits
from headrace.policies.wallet import Wallet

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
