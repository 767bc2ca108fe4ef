import json
from dataclasses import replace
from decimal import Decimal
from itertools import starmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import CostSettings, OverflowSettings, PoolSettings, Price, Settings
from headrace.domain.attempts import Usage
from headrace.domain.limits import Cost
from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.tools import ToolCall, Tools
from headrace.domain.queues import Route
from headrace.errors import UnknownPrice
from headrace.policies.pricing import (
    MESSAGE_TOKENS,
    TEMPLATE_TOKENS,
    TOOLS_TOKENS,
    HourRates,
    Tariff,
    TokenPrices,
    ceiling,
    cost,
)

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


def test_a_tier_of_the_provider_s_has_its_factor_and_its_name_in_the_ledger() -> None:
    tiered = PRICE.model_copy(update={"tiers": {"flex": Decimal("0.5"), "priority": Decimal("1.7")}})

    assert cost(tiered, Usage(1_000_000, 0), "flex") == Cost(Decimal("0.075"), "v1/flex")
    assert cost(tiered, Usage(1_000_000, 0), "priority") == Cost(Decimal("0.255"), "v1/priority")
    assert [cost(tiered, Usage(1_000_000, 0), tier) for tier in ("default", None, "new")] == [
        cost(PRICE, Usage(1_000_000))
    ] * 3


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


def test_a_list_price_counts_only_where_the_operator_has_set_none() -> None:
    listed = {"gpt-4o-mini": PRICE.model_copy(update={"version": "list-1"}), "gpt-9": PRICE}
    tariff = Tariff.of(Settings(prices={"gpt-4o-mini": PRICE})).with_list(listed)

    assert {model: price.version for model, price in tariff.api.items()} == {"gpt-4o-mini": "v1", "gpt-9": "v1"}
    assert Tariff.of(Settings().model_copy(update={"prices": {}})).unpriced == ("gpt-4o-mini",)
    assert tariff.unpriced == ()


@pytest.mark.parametrize(
    ("own_usd", "is_measured", "api", "is_cheaper"),
    [
        ("0.151", True, {"gpt-4o-mini": PRICE}, True),
        ("0.15", True, {"gpt-4o-mini": PRICE}, False),
        ("9", False, {"gpt-4o-mini": PRICE}, False),
        ("9", True, {}, False),
    ],
    ids=["cheaper", "as dear", "a placeholder", "no price"],
)
def test_the_paid_api_is_cheaper_than_another_host_only_by_a_measured_price(
    own_usd: str, is_measured: bool, api: dict[str, Price], is_cheaper: bool
) -> None:
    own = PRICE.model_copy(update={"input_usd_per_mtok": Decimal(own_usd)})
    tariff = Tariff.of(Settings().model_copy(update={"prices": api}))
    tariff = tariff.with_own({"chat": own}) if is_measured else replace(tariff, own={"chat": own})

    assert tariff.api_is_cheaper("chat", "m", Usage(100, 10)) is is_cheaper


@pytest.mark.parametrize(
    ("models", "in_use"),
    [
        ({}, {"gpt-4o-mini"}),
        ({"small": "gpt-4o"}, {"gpt-4o", "gpt-4o-mini"}),
        ({"small": "gpt-4o", "tuned": "gpt-4o"}, {"gpt-4o"}),
    ],
)
def test_a_default_that_answers_for_no_model_of_ours_is_not_in_use(models: dict[str, str], in_use: set[str]) -> None:
    pools = {"chat": PoolSettings(model="small", adapters={"tuned": "folder"})}
    tariff = Tariff.of(Settings().model_copy(update={"pools": pools, "overflow": OverflowSettings(models=models)}))

    assert tariff.api_models_in_use == in_use
    assert tariff.all_api_models == in_use | {"gpt-4o-mini"}, "an old job may name a model that is no longer served"


@pytest.mark.parametrize(("tiers", "most"), [({"flex": "0.5"}, "1"), ({"flex": "0.5", "priority": "1.7"}, "1.7")])
def test_a_call_costs_at_most_what_the_dearest_tier_does(tiers: dict[str, str], most: str) -> None:
    tiered = PRICE.model_copy(update={"tiers": {tier: Decimal(factor) for tier, factor in tiers.items()}})
    messages = (Message("user", "hello"),)

    assert ceiling(tiered, messages, Sampling(50)).usd == ceiling(PRICE, messages, Sampling(50)).usd * Decimal(most)


def test_a_tier_that_no_call_can_ask_for_is_asked_for_by_none() -> None:
    plain = PRICE.model_copy(update={"tiers": {"batch": Decimal("0.5")}})
    both = PRICE.model_copy(update={"tiers": {"batch": Decimal("0.5"), "flex": Decimal("0.6")}})
    tariffs = [Tariff({}, {"paid": price}, {}, "paid", frozenset()) for price in (PRICE, plain, both)]
    assert [tariff.api_tier("m", has_time=True) for tariff in tariffs] == [None, None, "flex"]


def test_a_call_costs_at_most_a_token_for_each_byte_and_all_the_tokens_it_may_make() -> None:
    messages = (Message("system", "Be brief."), Message("user", "Grüße 🌊"))
    most = cost(PRICE, Usage(9 + 12 + 3 * MESSAGE_TOKENS + TEMPLATE_TOKENS, 50))

    assert ceiling(PRICE, messages, Sampling(50)) == most
    assert ceiling(PRICE, messages, Sampling(10, n=5)) == most, "all answers together"


def test_a_schema_is_part_of_the_prompt() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x" * 1000}}
    plain, with_schema = (
        ceiling(PRICE, (Message("user", "hi"),), Sampling(1, response_format=each)).usd for each in (None, schema)
    )

    assert with_schema - plain > cost(PRICE, Usage(1000)).usd


def test_the_paid_api_has_no_price_for_embeddings() -> None:
    pools = {"chat": PoolSettings(model="talks"), "embed": PoolSettings(model="embeds", serves="embeddings")}
    tariff = Tariff.of(Settings(prices={"gpt-4o-mini": PRICE}).model_copy(update={"pools": pools}))
    assert (tariff.api_usd("talks", Usage(1)), tariff.api_usd("embeds", Usage(1))) == (Decimal("0.00000015"), None)
    assert tariff.price(Route.POOL, "embed", "embeds") == pools["embed"].price
    only = Tariff.of(Settings().model_copy(update={"pools": {"embed": pools["embed"]}, "prices": {}}))
    assert only.unpriced == ()


def test_who_speaks_is_part_of_what_a_prompt_may_cost() -> None:
    plain, named = (ceiling(PRICE, [Message("user", "Hi", name)], Sampling(5)).usd for name in (None, "é" * 10))
    assert named == plain + (20 + MESSAGE_TOKENS) * PRICE.input_usd_per_mtok / 1_000_000


def test_the_maximum_covers_tools_and_calls() -> None:
    def tokens(messages: tuple[Message, ...], tools: Tools | None = None) -> Decimal:
        """The maximum of the prompt's tokens."""
        per_token = PRICE.model_copy(update={"input_usd_per_mtok": Decimal(1_000_000)})
        return ceiling(per_token, messages, Sampling(0, tools=tools)).usd

    asked = (Message("user", "Hi"),)
    schema = {"type": "object", "properties": {"city": {"type": "string", "description": "grün"}}}
    tools = Tools(({"name": "weather", "description": "w" * 500, "parameters": schema},))
    assert tokens(asked, tools) - tokens(asked) >= len(json.dumps(tools.specs[0], indent=4)) + TOOLS_TOKENS
    named = replace(tools, choice="function", name="weather")
    assert tokens(asked, named) > tokens(asked, tools)
    called = (*asked, Message("assistant", "", tool_calls=(ToolCall("call_1", "weather", "a" * 300),)))
    output = (*called, Message("tool", "b" * 100, tool_call_id="call_1"))
    assert tokens(called) - tokens(asked) >= 300 + len("weather") + len("call_1")
    assert tokens(output) - tokens(called) >= 100 + len("call_1")


# Properties of how an hour's bill is shared.

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
