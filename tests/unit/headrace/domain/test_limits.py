"""Budgets that pay for calls, and what is left of a rate."""

from decimal import Decimal

import pytest

from headrace.config import BudgetSettings
from headrace.domain.limits import (
    BUDGETS,
    NO_RATES,
    Budget,
    NoBudget,
    RateLeft,
    Shortfall,
    reached,
    short_of,
    shortfall,
)

OWN_DAY, OWN_MONTH = Budget(True, "day"), Budget(True, "month")
ALL_DAY, ALL_MONTH = Budget(False, "day"), Budget(False, "month")


def limits(day: str | None = None, month: str | None = None) -> BudgetSettings:
    return BudgetSettings(day_usd=day and Decimal(day), month_usd=month and Decimal(month))


@pytest.mark.parametrize(
    ("own", "together", "used", "lacking"),
    [
        (limits(day="2"), limits(), {}, None),
        (limits(day="2"), limits(), {OWN_DAY: "1"}, None),
        (limits(day="2"), limits(), {OWN_DAY: "1.000000001"}, OWN_DAY),
        (limits(day="2"), limits(), {OWN_MONTH: "9", ALL_DAY: "9"}, None),
        (limits(month="2"), limits(), {OWN_MONTH: "1.5"}, OWN_MONTH),
        (limits(), limits(day="0"), {}, ALL_DAY),
        (limits(), limits(month="5"), {ALL_MONTH: "4.5"}, ALL_MONTH),
        (limits(day="1", month="1"), limits(day="1", month="1"), dict.fromkeys(BUDGETS, "1"), ALL_DAY),
    ],
)
def test_the_first_budget_that_a_call_of_one_dollar_does_not_fit(
    own: BudgetSettings, together: BudgetSettings, used: dict[Budget, str], lacking: Budget | None
) -> None:
    found = shortfall(Decimal(1), {budget: Decimal(usd) for budget, usd in used.items()}, own, together)

    assert (found.budget if isinstance(found, Shortfall) else found) == lacking


def test_a_call_is_paid_from_a_budget_or_not_made() -> None:
    assert shortfall(Decimal(0), {}, limits(), limits()) == NoBudget()
    assert "headrace budgets set --day-usd 5" in str(NoBudget())


@pytest.mark.parametrize(
    ("call", "spent", "used", "kind"),
    [
        ("1", "4.5", "4.5", "spent"),
        ("1", "4.5", "5", "spent"),
        ("1", "0.35", "4.8", "reserved"),
        ("0.5", "4.2", "4.8", "reserved"),
        ("5", "1", "1", None),
        ("5", "1", "4.8", "reserved"),
    ],
)
def test_what_a_call_that_does_not_fit_tells_about_a_budget_of_five_dollars(
    call: str, spent: str, used: str, kind: str | None
) -> None:
    assert short_of(Decimal(call), Decimal(spent), Decimal(used), Decimal(5)) == kind


def test_a_shortfall_says_whose_budget_it_is_and_what_is_left() -> None:
    used = {OWN_DAY: Decimal("4.750000000")}
    assert str(shortfall(Decimal(1), used, limits(day="5"), limits())) == (
        "this app's budget, 5 USD a day, has 0.25 USD left"
    )
    overdrawn = shortfall(Decimal(1), {ALL_MONTH: Decimal(300)}, limits(), limits(month="100"))
    assert str(overdrawn) == "the budget of all apps together, 100 USD a month, has 0 USD left"


@pytest.mark.parametrize(
    ("used", "limit", "is_short", "thresholds"),
    [
        ("0", "5", False, ()),
        ("3.999999999", "5", False, ()),
        ("4", "5", False, (80,)),
        ("4.999999999", "5", False, (80,)),
        ("4.99", "5", True, (80, 100)),
        ("5", "5", False, (80, 100)),
        ("7", "5", False, (80, 100)),
        ("0", "0", False, (80, 100)),
    ],
)
def test_the_thresholds_that_a_budget_has_come_to(
    used: str, limit: str, is_short: bool, thresholds: tuple[int, ...]
) -> None:
    assert reached(Decimal(used), Decimal(limit), is_short=is_short) == thresholds


@pytest.mark.parametrize(("left", "full_in_s"), [(120, 0.0), (119, 0.5), (60, 30.0), (0, 60.0)])
def test_a_rate_is_full_again_once_what_was_used_has_come_back(left: int, full_in_s: float) -> None:
    assert RateLeft(120, left).full_in_s == pytest.approx(full_in_s)


def test_an_app_without_limits_has_no_rates() -> None:
    assert (NO_RATES.requests, NO_RATES.tokens) == (None, None)
