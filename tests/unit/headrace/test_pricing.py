from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import Price, Settings
from headrace.errors import UnknownPrice
from headrace.jobs import Route, Usage
from headrace.pricing import Tariff, cost

PRICE = Price(
    input_usd_per_mtok=Decimal("0.15"),
    cached_input_usd_per_mtok=Decimal("0.075"),
    output_usd_per_mtok=Decimal("0.60"),
    source="test",
    version="v1",
)


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        (Usage(), "0"),
        (Usage(1, 0), "0.00000015"),
        (Usage(1_000_000, 0), "0.15"),
        (Usage(0, 1_000_000), "0.60"),
        (Usage(1155, 211), "0.00029985"),
        (Usage(1155, 211, 1024), "0.00022305"),
    ],
)
def test_cost_is_exact(usage: Usage, usd: str) -> None:
    assert cost(PRICE, usage).usd == Decimal(usd)


def test_cached_tokens_cost_as_others_where_no_price_is_given() -> None:
    plain = PRICE.model_copy(update={"cached_input_usd_per_mtok": None})

    assert cost(plain, Usage(100, 0, 60)) == cost(plain, Usage(100, 0, 0))


tokens = st.integers(0, 10_000_000)


@given(tokens, tokens, tokens, st.integers(0, 1000))
def test_cost_never_falls_when_tokens_are_added(prompt: int, output: int, cached: int, more: int) -> None:
    usage = Usage(prompt, output, min(cached, prompt))

    assert cost(PRICE, Usage(prompt, output + more, usage.cached_tokens)).usd >= cost(PRICE, usage).usd >= 0


def test_unlisted_model_has_no_price_and_no_comparison() -> None:
    tariff = Tariff.of(Settings().model_copy(update={"prices": {}}))

    with pytest.raises(UnknownPrice, match="gpt-4o-mini"):
        tariff.price(Route.OVERFLOW, "chat", "m")
    assert tariff.api_usd("m", Usage(1, 1)) is None


def test_route_chooses_the_price() -> None:
    settings = Settings(prices={"gpt-4o-mini": PRICE})
    tariff = Tariff.of(settings)

    assert tariff.price(Route.OVERFLOW, "chat", "m") == PRICE
    assert tariff.price(Route.POOL, "chat", "m") == settings.pools["chat"].price
