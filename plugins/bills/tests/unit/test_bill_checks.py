"""Why a bill differs from the ledger, and that the parts of each side add up to it."""

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.bills.checks import BillSource, Cause, Charge, by_cause, check, share

FIRST = date(2026, 11, 1)
Side = dict[tuple[str, date], Charge]


def side(*days: tuple[float, float | None] | tuple[float, float | None, float] | None, name: str = "gpu-1") -> Side:
    """A quantity and USD for each day; None: nothing."""
    found = {}
    for number, each in enumerate(days):
        if each is not None:
            quantity, usd, doubled = (*each, 0.0)[:3]
            amount = None if usd is None else Decimal(str(usd))
            charge = Charge(Decimal(str(quantity)), amount, Decimal(str(doubled)))
            found[name, FIRST + timedelta(days=number)] = charge
    return found


def causes(source: BillSource, ledger: Side, bill: Side) -> list[tuple[Cause, Decimal]]:
    rows = check(source, ledger, bill)
    return [(each.cause, each.difference_usd) for each in rows if each.cause is not Cause.NONE]


@pytest.mark.parametrize(
    ("ledger", "bill", "expected"),
    [
        ([(24, 96)], [(24, 96)], []),
        ([(24, 96)], [None], [("missing_host", -96)]),
        ([None], [(24, 96)], [("unknown_host", 96)]),
        ([None], [(0, 5)], [("unknown_host", 5)]),
        ([(24, 96)], [(24, 120)], [("price", 24)]),
        ([(20, 80)], [(24, 96)], [("hours", 16)]),
        ([(20, 80)], [(24, 120)], [("hours", 20), ("price", 20)]),
        ([(24, 96)], [(48, 192, 24)], [("double", 96)]),
        ([(24, 96)], [(48, 192)], [("double", 96)]),
        ([(2, 8)], [(4, 16)], [("hours", 8)]),
        ([(4, 16)], [(4, 16, 2)], []),
        ([(23, 92), (1, 4)], [(22, 88), (2, 8)], [("midnight", -4), ("midnight", 4)]),
        ([(2, 8), None], [(1, 4), (1, 4)], [("midnight", -4), ("midnight", 4)]),
        ([(5, 20), (24, 96), (9, 36)], [(6, 24), (24, 96), (8, 32)], [("midnight", 4), ("midnight", -4)]),
        (
            [(9, 36), (23, 92), (1, 4)],
            [(14, 56), (22, 88), (2, 8)],
            [("hours", 20), ("midnight", -4), ("midnight", 4)],
        ),
        ([(24, 96)], [(24.01, 96.04)], [("rounding", Decimal("0.04"))]),
        ([(24, 96)], [(24, 96.05)], [("rounding", Decimal("0.05"))]),
    ],
    ids=[
        *(
            "same",
            "missing",
            "unknown",
            "fee",
            "price",
            "hours",
            "hours_price",
            "double_lines",
            "double_day",
            "twice_as_long",
        ),
        *("alike_lines", "midnight", "midnight_one_day", "time_zone", "hours_then_midnight", "seconds", "cents"),
    ],
)
def test_each_difference_of_a_host_has_its_cause(ledger: Any, bill: Any, expected: Any) -> None:
    assert causes(BillSource.HOSTS, side(*ledger), side(*bill)) == expected


@pytest.mark.parametrize(
    ("ledger", "bill", "expected"),
    [
        ([(1000, 1)], [(1500, 1.5)], [("unbooked", Decimal("0.5"))]),
        ([(1000, 1)], [(800, 0.8)], [("overbooked", Decimal("-0.2"))]),
        ([None], [(800, 0.8)], [("unbooked", Decimal("0.8"))]),
        ([(1000, 1)], [(2000, 2)], [("double", 1)]),
        (
            [(1000, 1), (1000, 1)],
            [(900, 0.9), (1100, 1.1)],
            [("midnight", Decimal("-0.1")), ("midnight", Decimal("0.1"))],
        ),
        (
            [(1000, 1), (1000, 1), (1000, 1)],
            [(900, 0.9), (1000, 1), (1100, 1.1)],
            [("overbooked", Decimal("-0.1")), ("unbooked", Decimal("0.1"))],
        ),
        ([(1000, 1)], [(1500, None)], [("unbooked", Decimal("0.5"))]),
    ],
    ids=["lost", "less", "alone", "twice", "midnight", "not_neighbours", "without_amounts"],
)
def test_each_difference_of_the_paid_api_has_its_cause(ledger: Any, bill: Any, expected: Any) -> None:
    assert causes(BillSource.API, side(*ledger), side(*bill)) == expected


def test_tokens_without_an_amount_have_the_models_other_price_or_the_listed_one() -> None:
    bill = side((10, None), (10, None))
    other_day = check(BillSource.API, side((10, 5)), bill)
    listed = check(BillSource.API, {}, bill, {"gpu-1": Decimal("0.25")})

    assert by_cause(other_day) == {Cause.UNBOOKED: 5}
    assert by_cause(listed) == {Cause.UNBOOKED: 5}
    assert by_cause(check(BillSource.API, {}, bill)) == {Cause.UNBOOKED: 0}


def test_the_share_counts_differences_that_cancel_out_and_leaves_harmless_ones_out() -> None:
    ledger = side((20, 80), (24, 96)) | side((10, 40), None, name="gpu-2")
    bill = side((24, 96), (20, 80)) | side((9, 36), (1, 4), name="gpu-2")
    assert share(check(BillSource.HOSTS, ledger, bill)) == 0, "four hours moved over a midnight"
    bill = side((24, 96), (10, 40)) | side((9, 36), (1, 4), name="gpu-2")
    assert share(check(BillSource.HOSTS, ledger, bill)) == Decimal(16 + 56) / (96 + 40 + 40)
    assert share(check(BillSource.HOSTS, ledger, {})) == 1
    assert share([]) == 0
    assert share(check(BillSource.HOSTS, {}, side((24, -96)))) == 1, "a credit"


CHARGE = st.none() | st.builds(
    Charge,
    st.decimals(0, 30, places=3),
    st.decimals(0, 100, places=4),
    st.decimals(0, 15, places=3),
)
SIDE = st.lists(CHARGE, max_size=6).map(
    lambda days: {("a", FIRST + timedelta(days=n)): each for n, each in enumerate(days) if each is not None}
)


@given(st.sampled_from(BillSource), SIDE, SIDE)
def test_the_parts_of_each_side_add_up_to_it(source: BillSource, ledger: Side, bill: Side) -> None:
    rows = check(source, ledger, bill)
    # A quantity of nothing has no price, so its amount is on its side as it is.
    for name, given_side in (("ledger", ledger), ("billed", bill)):
        usd = sum(getattr(each, f"{name}_usd") for each in rows)
        quantity = sum(getattr(each, f"{name}_quantity") for each in rows)
        assert abs(usd - sum(each.usd or 0 for each in given_side.values())) < Decimal("1e-18")
        assert abs(quantity - sum(each.quantity for each in given_side.values())) < Decimal("1e-18")
