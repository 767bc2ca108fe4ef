"""Prices by the calendar, shares of a machine's bill, and the machines that leases name."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import OwnedHostSettings
from headrace.domain.hosts import HostLease
from headrace.policies.host_bills import PoolUse, PricedSpan, lease_spans, machines_of, priced_spans, shares, split

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
CENT = Decimal("0.01")


def own(**changes: Any) -> OwnedHostSettings:
    return OwnedHostSettings.model_validate({"name": "gpu-1", "type": "a100", "since": JANUARY} | changes)


def usd(spans: list[PricedSpan]) -> Decimal:
    hour = timedelta(hours=1)
    return sum((each.usd_per_hour * Decimal((each.ended_at - each.began_at) / hour) for each in spans), Decimal())


def priced(until: datetime, **changes: Any) -> Decimal:
    return round(usd(list(priced_spans(own(**changes), Decimal(2), until))), 6)


@pytest.mark.parametrize("month", range(1, 12))
def test_each_whole_month_costs_the_price_of_a_month(month: int) -> None:
    since = JANUARY.replace(month=month)
    assert priced(JANUARY.replace(month=month + 1), since=since, usd_per_month=900) == 900


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        ({}, 2 * 744),
        ({"usd_per_hour": "0.5"}, Decimal("0.5") * 744),
        ({"usd_per_month": "100"}, 100),
        ({"power_kw": "0.7", "usd_per_kwh": "0.3"}, Decimal("0.21") * 744),
        ({"rack_usd_per_month": "50", "power_kw": "1", "usd_per_kwh": "1"}, 50 + 744),
        ({"purchase_usd": "365", "purchase_months": 12}, 31),
        ({"purchase_usd": "365", "purchase_months": 12, "rack_usd_per_month": "9"}, 31 + 9),
    ],
)
def test_a_january_costs_the_hours_the_month_or_the_parts(price: dict[str, Any], expected: Decimal) -> None:
    assert priced(datetime(2026, 2, 1, tzinfo=UTC), **price) == expected


def test_a_purchase_adds_up_to_what_it_cost_and_then_costs_nothing_more() -> None:
    price = {"since": datetime(2026, 1, 31, 7, tzinfo=UTC), "purchase_usd": "10000", "purchase_months": 13}
    assert priced(datetime(2030, 1, 1, tzinfo=UTC), **price) == 10_000
    assert priced(datetime(2027, 2, 28, 7, tzinfo=UTC), **price) == 10_000


def test_a_machine_costs_until_its_end_in_any_time_zone() -> None:
    host = own(until="2026-01-02T02:00:00+02:00")
    assert usd(list(priced_spans(host, Decimal(2), datetime(2030, 1, 1, tzinfo=UTC)))) == 2 * 24
    assert priced(JANUARY - timedelta(days=1)) == 0


@pytest.mark.parametrize(
    ("pools", "fixed", "expected"),
    [
        ({"a": PoolUse(Decimal(1), Decimal(3)), "b": PoolUse(Decimal(9), Decimal(1))}, {}, ("0.75", "0.25")),
        ({"a": PoolUse(Decimal(1)), "b": PoolUse(Decimal(3))}, {}, ("0.25", "0.75")),
        ({"a": PoolUse(Decimal(0)), "b": PoolUse(Decimal(0))}, {}, ("0.5", "0.5")),
        ({"a": PoolUse(Decimal(1), Decimal(3)), "b": PoolUse(Decimal(1))}, {"b": Decimal("0.2")}, ("0", "1")),
        ({"a": PoolUse(Decimal(1), Decimal(3)), "b": PoolUse(Decimal(1))}, {"c": Decimal("0.2")}, ("1", "0")),
    ],
    ids=["use", "time", "even", "fixed", "strange"],
)
def test_a_bill_is_shared(pools: Any, fixed: Any, expected: tuple[str, str]) -> None:
    assert tuple(shares(pools, fixed).values()) == tuple(map(Decimal, expected))


@given(
    st.decimals(0, 1000, places=2),
    st.dictionaries(st.text(max_size=3), st.decimals(0, 10, places=3), min_size=1).filter(
        lambda w: sum(w.values()) > 0
    ),
)
def test_parts_add_up_to_the_last_digit(amount: Decimal, weights: dict[str, Decimal]) -> None:
    parts = split(amount, weights, CENT)
    assert sum(parts.values()) == amount
    assert all(part >= 0 for part in parts.values())
    assert all(abs(part - amount * weights[name] / sum(weights.values())) <= CENT for name, part in parts.items())


def lease(host_id: str, begins: int = 0, ends: int | None = None, **changes: Any) -> HostLease:
    began = JANUARY + timedelta(hours=begins)
    ended = None if ends is None else JANUARY + timedelta(hours=ends)
    usual = {"usd_per_hour": Decimal(4), "requested_at": began, "ordered_at": began, "ended_at": ended}
    return HostLease(host_id, **{"pool": "chat", **usual, **changes})


def test_leases_that_share_a_name_are_one_machine() -> None:
    found = machines_of(
        [lease("a", provider_id="vm"), lease("b"), lease("c", provider_id="b"), lease("vm"), lease("d")]
    )
    assert [[each.id for each in machine] for machine in found] == [["b", "c"], ["a", "vm"], ["d"]]


def test_a_machine_has_one_bill_from_its_first_lease_to_its_last_and_one_price() -> None:
    until = JANUARY + timedelta(hours=10)
    both = [lease("a", 0, 4), lease("b", 2, 6, usd_per_hour=Decimal(9)), lease("c", 8, usd_per_hour=None)]
    assert list(lease_spans(both, until)) == [PricedSpan(JANUARY, JANUARY + timedelta(hours=6), Decimal(4))]
    adopted_first = [lease("a", 0, 4, is_adopted=True), lease("b", 2, 6, usd_per_hour=Decimal(9))]
    assert [each.usd_per_hour for each in lease_spans(adopted_first, until)] == [9]
