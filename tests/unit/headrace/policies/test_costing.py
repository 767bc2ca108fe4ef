"""Properties of how an hour's bill is shared."""

from decimal import Decimal
from itertools import starmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import CostSettings, Price
from headrace.domain.attempts import Usage
from headrace.policies.costing import HourRates, TokenPrices
from headrace.policies.pricing import cost

USD = st.decimals(0, 10_000, places=9)
REQUESTS = st.lists(st.tuples(st.decimals(0, 5, places=9), st.decimals(0, 200_000, places=1)), max_size=30)


def rates(bill_usd: Decimal, requests: list[tuple[Decimal, Decimal]], waste_usd: Decimal = Decimal(0)) -> HourRates:
    priced = sum((usd for usd, _ in requests), waste_usd)
    return HourRates.of(bill_usd, priced, sum((work for _, work in requests), Decimal(0)))


@given(USD, REQUESTS, st.decimals(0, 5, places=9))
def test_the_shares_and_the_platforms_rest_are_the_bill_and_none_is_negative(
    bill_usd: Decimal, requests: list[tuple[Decimal, Decimal]], waste_usd: Decimal
) -> None:
    hour = rates(bill_usd, requests, waste_usd)

    shares = [*starmap(hour.share, requests), hour.share(waste_usd)]

    assert all(share >= 0 for share in shares)
    assert sum(shares) <= bill_usd


@given(USD, REQUESTS.filter(lambda found: any(work for _, work in found)))
def test_the_platforms_rest_is_below_the_last_digit_of_each_share(
    bill_usd: Decimal, requests: list[tuple[Decimal, Decimal]]
) -> None:
    hour = rates(bill_usd, requests)

    rest = bill_usd - sum(starmap(hour.share, requests))

    work = sum(work for _, work in requests)
    assert rest <= Decimal("2e-9") * len(requests) + Decimal("1e-18") * (work + bill_usd + 1)


@given(USD, st.lists(st.tuples(USD, USD), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_the_requests_does_not_matter(bill_usd, requests, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(requests)
    random.shuffle(shuffled)

    assert rates(bill_usd, shuffled) == rates(bill_usd, requests)


@given(USD, REQUESTS, st.decimals(0, 5, places=9), st.decimals(0, 1000, places=1))
def test_more_work_never_costs_less(
    bill_usd: Decimal, requests: list[tuple[Decimal, Decimal]], usd: Decimal, work: Decimal
) -> None:
    hour = rates(bill_usd, [*requests, (usd, work)])

    assert hour.share(usd, work + 1) >= hour.share(usd, work)


@pytest.mark.parametrize(
    ("bill", "priced", "work", "expected"),
    [
        ("4.10", "1.10", "1000", HourRates(Decimal(1), Decimal("0.003"))),
        ("4.10", "8.20", "1000", HourRates(Decimal("0.5"), Decimal(0))),
        ("4.10", "4.10", "1000", HourRates(Decimal(1), Decimal(0))),
        ("4.10", "0", "0", HourRates(Decimal(1), Decimal(0))),
        ("0", "0", "0", HourRates(Decimal(1), Decimal(0))),
    ],
    ids=["idle", "more prices than the bill", "exactly used", "nothing served", "no bill"],
)
def test_rates_of_an_hour(bill: str, priced: str, work: str, expected: HourRates) -> None:
    assert HourRates.of(Decimal(bill), Decimal(priced), Decimal(work)) == expected


@given(st.decimals(0, 100, places=9), st.floats(1, 1e6), st.lists(st.tuples(*[st.integers(0, 10**6)] * 3), min_size=1))
def test_the_requests_of_a_saturated_host_pay_for_it(
    usd_per_hour: Decimal, work_per_s: float, requests: list[tuple[int, int, int]]
) -> None:
    costs = CostSettings()
    prices = TokenPrices.of(usd_per_hour, work_per_s, costs)
    own = Price(**{name: getattr(prices, name) for name in prices.__slots__}, version="v", source="s")

    paid = sum(cost(own, Usage(new + cached, made, cached_tokens=cached)).usd for new, cached, made in requests)

    work = sum(new + costs.cached_weight * cached + costs.output_weight * made for new, cached, made in requests)
    due = usd_per_hour / 3600 * work / Decimal(work_per_s)
    # Each price is rounded to nine digits of a dollar for a million tokens.
    assert abs(paid - due) <= Decimal("1e-9") * sum(map(sum, requests)) / 1_000_000 + Decimal("1e-20")


@pytest.mark.parametrize(("usd", "differs"), [("1.04", False), ("1.06", True), ("0.94", True), ("1", False)])
def test_prices_that_hardly_change_are_the_same(usd: str, differs: bool) -> None:
    price = Price.model_validate(
        {f"{name}_usd_per_mtok": 1 for name in ("input", "cached_input", "output")} | {"version": "v", "source": "s"}
    )

    assert TokenPrices(Decimal(1), Decimal(1), Decimal(usd)).differ_from(price) is differs
