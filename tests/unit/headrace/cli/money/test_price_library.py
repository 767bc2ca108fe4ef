"""What of the library's list prices the ledger can use. The data is that of the installed package."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from importlib.metadata import version
from typing import Any

import pytest
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from headrace.cli.money import price_library
from headrace.cli.money.price_library import FoundPrice, NoListPrice, look_up

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
AMOUNTS = {"input_mtok": Decimal("1"), "cache_read_mtok": Decimal("0.1"), "output_mtok": Decimal("4")}


def listed(model: str, base_url: str | None = None, provider: str | None = None) -> FoundPrice:
    found = look_up(model, base_url, provider, NOW)
    assert isinstance(found, FoundPrice), found
    return found


def refused(model: str, base_url: str | None = None, provider: str | None = None) -> str:
    found = look_up(model, base_url, provider, NOW)
    assert isinstance(found, NoListPrice), found
    return found.reason


def test_a_list_price_has_what_a_call_is_charged_and_its_source() -> None:
    price = listed("gpt-4o-mini").price

    assert (price.input_usd_per_mtok, price.cached_input_usd_per_mtok) == (Decimal("0.15"), Decimal("0.075"))
    assert (price.output_usd_per_mtok, price.tiers) == (Decimal("0.6"), {})
    assert price.source == f"genai-prices {version('genai-prices')}: openai/gpt-4o-mini"


def test_a_tier_is_a_factor_where_it_is_the_same_share_of_each_price() -> None:
    found = listed("gpt-5-mini")

    assert found.price.tiers == {"flex": Decimal("0.5"), "batch": Decimal("0.5")}
    assert not any("left out" in note for note in found.notes)


def test_flex_is_left_out_with_a_note_where_it_is_not() -> None:
    found = listed("o4-mini")  # its cached tokens cost 0.138 instead of 0.1375

    assert found.price.tiers == {}
    assert any("flex prices are left out" in note for note in found.notes)


def test_batch_prices_are_left_out_with_a_note_where_cached_tokens_have_no_discount_in_them() -> None:
    assert any("batch prices are left out" in note for note in listed("gpt-4o-mini").notes)


@pytest.mark.parametrize(
    ("model", "base_url", "provider", "reason"),
    [
        ("gpt-5.5", None, None, "its price changes above 272,000 tokens of the prompt"),
        ("gpt-4o-mini-search-preview", None, None, "it searches the web"),
        ("no-such-model", None, None, "not in the list of genai-prices"),
        ("gpt-4o-mini", "http://127.0.0.1:9/v1", None, "Name the provider with --provider"),
        ("gpt-4o-mini", None, "no-such-provider", "Unable to find provider"),
    ],
)
def test_what_a_row_cannot_express_is_refused_with_the_reason(
    model: str, base_url: str | None, provider: str | None, reason: str
) -> None:
    assert reason in refused(model, base_url, provider)


def test_the_provider_is_the_one_of_the_url_or_the_one_that_is_named() -> None:
    gateway = "https://gateway.example/v1"

    assert "openai/" in listed("gpt-4o-mini", "https://api.openai.com/v1").price.source
    assert "not in the list" in refused("gpt-4o-mini", gateway)
    assert listed("gpt-4o-mini", gateway, "openai").price == listed("gpt-4o-mini").price


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com.evil.example/v1",
        "https://api.openai.com@evil.example/v1",
        "https://api.openai.com:443@evil.example/v1",
        "https://evil.example/https://api.openai.com",
        "https://evil.example/x.googleapis.com",
        "https://api.openai.community/v1",
    ],
)
def test_a_host_that_begins_like_a_provider_s_is_another(url: str) -> None:
    assert "no provider has the host '" in refused("gpt-4o-mini", url)
    assert "no provider has the host '" in refused("gemini-2.5-flash", url)


@pytest.mark.parametrize(
    ("model", "url", "provider"),
    [
        ("gpt-4o-mini", "https://API.openai.com:443/v1/", "openai"),
        ("gpt-4o-mini", "https://ours.openai.azure.com/openai/v1", "azure"),
        ("mistral-small-latest", "https://api.mistral.ai/v1", "mistral"),
    ],
)
def test_a_provider_is_known_by_its_host_whatever_its_port_and_path(model: str, url: str, provider: str) -> None:
    assert f": {provider}/" in listed(model, url).price.source


class Snapshot:
    """A list with one model."""

    def __init__(self, info: ModelInfo) -> None:
        self.info = info
        self.providers = [type("Provider", (), {"id": "maker", "api_pattern": r"https://api\.openai\.com"})]

    def find_provider_model(self, _model: str, provider: Any, *_: Any) -> tuple[Any, ModelInfo]:
        return provider, self.info


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is found of a model with these prices."""

    def of(prices: Any, variants: list[PriceVariant] | None = None) -> FoundPrice | NoListPrice:
        info = ModelInfo("m", ClauseEquals("m"), prices=prices, price_variants=variants)
        monkeypatch.setattr(price_library, "_snapshot", lambda: Snapshot(info))
        return look_up("m", None, None, NOW)

    return of


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"requests_kcount": Decimal("5")}, "charged by more than tokens (requests_kcount)"),
        ({"cache_write_mtok": Decimal("1.25")}, "charges extra for tokens that it writes to its cache"),
        ({"cache_write_5m_mtok": Decimal("2")}, "charges extra for tokens that it writes to its cache"),
        ({"cache_read_mtok": Decimal("1.1")}, "cached tokens cost more than others"),
        ({"output_reasoning_mtok": Decimal("5")}, "its reasoning has another price"),
        ({"output_citation_mtok": Decimal("5")}, "charged by more than tokens (output_citation_mtok)"),
        ({"output_mtok": None}, "the list has no price for answers"),
        ({"input_mtok": Decimal(0)}, "the list has no price for prompts"),
        ({"input_mtok": Decimal("0.0000000001")}, "more than 9 decimals"),
        ({"output_mtok": TieredPrices(Decimal(4), [Tier(200_000, Decimal(6))])}, "above 200,000 tokens"),
    ],
)
def test_a_model_that_charges_by_more_is_refused(looked_up: Any, more: dict[str, Any], reason: str) -> None:
    found = looked_up(ModelPrice(**{**AMOUNTS, **more}))

    assert isinstance(found, NoListPrice)
    assert reason in found.reason


@pytest.mark.parametrize(
    "more",
    [
        {"input_audio_mtok": Decimal(9), "web_searches_kcount": Decimal(10), "output_image_mtok": Decimal(9)},
        {"cache_write_mtok": Decimal("1")},
        {"output_reasoning_mtok": Decimal("4")},
    ],
)
def test_what_a_text_call_is_never_charged_for_does_not_matter(looked_up: Any, more: dict[str, Any]) -> None:
    price = looked_up(ModelPrice(**AMOUNTS, **more)).price

    assert (price.input_usd_per_mtok, price.output_usd_per_mtok) == (1, 4)


def test_cached_tokens_cost_as_others_where_the_list_has_no_price_for_them(looked_up: Any) -> None:
    assert looked_up(ModelPrice(**{**AMOUNTS, "cache_read_mtok": None})).price.cached_input_usd_per_mtok == 1


def test_a_price_by_the_time_of_day_is_refused(looked_up: Any) -> None:
    night = TimeOfDateConstraint(time(0, 30), time(8, 30))
    prices = [ConditionalPrice(prices=ModelPrice(**AMOUNTS)), ConditionalPrice(night, prices=ModelPrice(**AMOUNTS))]

    assert looked_up(prices).reason == "its price depends on the time of day"


def test_the_price_of_today_is_taken_and_the_next_one_announced(looked_up: Any) -> None:
    def since(year: int, usd: str) -> ConditionalPrice:
        return ConditionalPrice(
            StartDateConstraint(date(year, 1, 1)), prices=ModelPrice(**{**AMOUNTS, "input_mtok": Decimal(usd)})
        )

    found = looked_up([since(2024, "3"), since(2026, "2"), since(2027, "1")])

    assert found.price.input_usd_per_mtok == 2
    assert found.notes == ("another price begins on 2027-01-01: take it then",)


def test_a_tier_that_has_not_begun_is_not_taken(looked_up: Any) -> None:
    half = ModelPrice(**{name: usd / 2 for name, usd in AMOUNTS.items()})
    later = PriceVariant({"service_tier": "flex"}, half, StartDateConstraint(date(2027, 1, 1)))
    now = PriceVariant({"service_tier": "flex"}, half)

    assert looked_up(ModelPrice(**AMOUNTS), [later]).price.tiers == {}
    assert looked_up(ModelPrice(**AMOUNTS), [now]).price.tiers == {"flex": Decimal("0.5")}
