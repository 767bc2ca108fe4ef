"""The adapter of `genai-prices`: providers' list prices, from the data in the installed package, never from a network.

A call of Headrace is text in and text out, sent by itself, without tools. Of a list's prices it takes what such a call
is charged, and refuses a model whose calls are charged by anything else, because the ledger could not add that up.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from headrace.store.money.tariffs import ListPrice

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, Provider

PACKAGE = "genai-prices"
OPENAI_URL = "https://api.openai.com/v1"

#: Keys of the library for what each call is charged by.
INPUT, CACHED, OUTPUT = "input_mtok", "cache_read_mtok", "output_mtok"
#: Parts of its keys that name what no call of Headrace has: other media than text, tools and searches.
_NEVER_USED = ("audio", "image", "video", "document", "gpixels", "tool", "searches", "code_executions")
#: Digits that a row keeps after the point.
_DIGITS = 9


@dataclass(frozen=True, slots=True)
class FoundPrice:
    """A list price, and what was left out of it."""

    price: ListPrice
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NoListPrice:
    """Why a model has no list price that the ledger can use."""

    model: str
    reason: str


def look_up(model: str, base_url: str | None, provider: str | None, now: datetime) -> FoundPrice | NoListPrice:
    """The list price of a model at the provider of this URL.

    Args:
        base_url: of the paid API; None for OpenAI's.
        provider: the library's id of the provider, if the URL does not show it, as behind a gateway.
    """
    try:
        listing, info = _find(model, base_url or OPENAI_URL, provider)
    except LookupError as error:
        remedy = "" if provider else " Name the provider with --provider, as for a gateway to one."
        return NoListPrice(model, f"not in the list of {PACKAGE} {version(PACKAGE)}: {error}.{remedy}")
    if reason := _unusable(model, info, now):
        return NoListPrice(model, reason)
    amounts = _amounts(info, now, {})
    tiers, notes = _tiers(info, now, amounts)
    source = f"{PACKAGE} {version(PACKAGE)}: {listing.id}/{info.id}"
    return FoundPrice(ListPrice(model, amounts[INPUT], amounts[CACHED], amounts[OUTPUT], tiers, source), tuple(notes))


def _find(model: str, url: str, provider: str | None) -> tuple["Provider", "ModelInfo"]:
    """The provider with this id, or else at this URL, and its model. Raises: LookupError."""
    if provider:
        return _snapshot().find_provider_model(model, None, provider, None)
    # The library looks whether a URL begins with the pattern, and `https://api.openai.com.example` does. Here the whole
    # host decides, without a user or a port.
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.hostname}"
    for listing in _snapshot().providers:
        if re.fullmatch(listing.api_pattern, origin):
            return _snapshot().find_provider_model(model, listing, None, None)
    raise LookupError(f"no provider has the host '{parts.hostname}'")


@cache
def _snapshot() -> "DataSnapshot":
    # Here, because it reads 1.6 MB, which no other command needs.
    from genai_prices.data import providers
    from genai_prices.data_snapshot import DataSnapshot

    return DataSnapshot(providers, from_auto_update=False)


def _unusable(model: str, info: "ModelInfo", now: datetime) -> str:
    """Why the ledger cannot add up what calls of this model are charged; empty if it can."""
    if "search" in model:
        return "it searches the web, which is charged by the search"
    if isinstance(info.prices, list) and any(hasattr(each.constraint, "start_time") for each in info.prices):
        return "its price depends on the time of day"
    listed = _listed(info, now, {})
    for key, value in listed.items():
        if tiers := getattr(value, "tiers", None):
            return f"its price changes above {tiers[0].start:,} tokens of the prompt ({key})"
    for key in (INPUT, OUTPUT):
        if not listed.get(key):
            return f"the list has no price for {'prompts' if key == INPUT else 'answers'}"
    return _more_charges(listed)


def _more_charges(listed: Mapping[str, Any]) -> str:
    """What else a call may be charged by; empty if by nothing that the three prices do not cover."""
    for key, value in listed.items():
        if key == CACHED and value > listed[INPUT]:
            return f"cached tokens cost more than others ({key}), which no reservation covers"
        if key.startswith("cache_write") and value > listed[INPUT]:
            return f"it charges extra for tokens that it writes to its cache ({key}), which the ledger does not count"
        if key.startswith(("output_reasoning", "output_text_reasoning")) and value != listed[OUTPUT]:
            return f"its reasoning has another price than its answers ({key})"
        if key not in (INPUT, CACHED, OUTPUT) and not key.startswith(("cache_write", "output_reasoning")):
            return f"its calls are charged by more than tokens ({key})"
        if round(value, _DIGITS) != value:
            return f"its price has more than {_DIGITS} decimals ({key})"
    return ""


def _listed(info: "ModelInfo", now: datetime, context: Mapping[str, str]) -> dict[str, Any]:
    """The prices that a text call may be charged by, without those that are nothing."""
    prices = vars(info.get_prices(now, context))
    return {key: value for key, value in prices.items() if value and not any(part in key for part in _NEVER_USED)}


def _amounts(info: "ModelInfo", now: datetime, context: Mapping[str, str]) -> dict[str, Decimal]:
    listed = _listed(info, now, context)
    return {INPUT: listed[INPUT], CACHED: listed.get(CACHED, listed[INPUT]), OUTPUT: listed[OUTPUT]}


#: The tiers that are used, each by what the library asks for it by.
_TIERS = {"flex": {"service_tier": "flex"}, "batch": {"processing": "batch"}}


def _tiers(info: "ModelInfo", now: datetime, base: Mapping[str, Decimal]) -> tuple[dict[str, Decimal], list[str]]:
    """The factors of the tiers that are used; and what is left out, with the reason."""
    notes = [f"another price begins on {start}: take it then" for start in _coming(info, now)]
    found = {}
    for tier, asked in _TIERS.items():
        amounts = _amounts(info, now, asked)
        factors = {amounts[key] / base[key] for key in base}
        if len(factors) > 1:
            notes.append(f"{tier} prices are left out: they are not the same share of each price")
        elif factors != {Decimal(1)}:
            found[tier] = factors.pop()
    return found, notes


def _coming(info: "ModelInfo", now: datetime) -> Iterator[date]:
    """The days from which the list has another price."""
    for each in info.prices if isinstance(info.prices, list) else ():
        start: date | None = getattr(each.constraint, "start_date", None)
        if start is not None and start > now.astimezone(UTC).date():
            yield start
