"""Types of hosts and owned machines: what is refused, with the remedy."""

from typing import Any

import pytest

from headrace.config import Settings
from headrace.errors import ConfigError

OWN = {"name": "gpu-1", "type": "a100", "since": "2026-11-01T00:00:00Z"}
TYPES = {"a100": {"usd_per_hour": "4.10"}, "t4": {"usd_per_hour": 1}}


def load(*owned: dict[str, Any], types: dict[str, Any] = TYPES) -> Settings:
    return Settings.load(owned_hosts=owned, hosts=types, scaling={"host_type": "a100"})


def test_a_machine_needs_a_name_a_type_and_a_beginning() -> None:
    [host] = load(OWN).owned_hosts

    assert (host.name, host.type, host.until, host.usd_per_month) == ("gpu-1", "a100", None, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "h100"}, r"\[\[owned_hosts\]\] 'gpu-1' has the type 'h100': add \[hosts.h100\]"),
        ({"type": "t4"}, "No pool pays for .* set its 'pools', or 'host_type' of a pool to 't4'"),
        ({"pools": ["embed"]}, r"owned_hosts\.0\.pools names pool 'embed'; the pools with hosts of their own: "),
        ({"since": "2026-11-01T00:00:00"}, "need a UTC offset"),
        ({"until": "2026-10-01T00:00:00Z"}, "'until' must be after 'since'"),
        ({"usd_per_hour": 1, "usd_per_month": 1}, "or a price made of its parts"),
        ({"usd_per_month": 1, "rack_usd_per_month": 1}, "or a price made of its parts"),
        ({"purchase_usd": 1}, "'purchase_usd' and 'purchase_months' are set together"),
        ({"purchase_usd": 1, "purchase_months": 1201}, r"owned_hosts\.0\.purchase_months"),
        ({"since": "0001-01-01T00:00:00+14:00"}, "'since' must be in 2000 or later"),
        ({"power_kw": 1}, "'power_kw' and 'usd_per_kwh' are set together"),
        ({"usd_per_hour": -1}, r"owned_hosts\.0\.usd_per_hour"),
        ({"price": 1}, r"owned_hosts\.0\.price"),
    ],
    ids=[
        *("type", "payer", "pool", "offset", "order", "two", "parts", "months", "far", "year", "kwh", "negative"),
        "unknown",
    ],
)
def test_a_wrong_machine_is_refused_with_the_remedy(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load({**OWN, **changes})


def test_a_machine_has_one_bill() -> None:
    with pytest.raises(ConfigError, match="has 'gpu-1' twice"):
        load(OWN, OWN)


def test_shares_are_those_of_pools_with_hosts() -> None:
    with pytest.raises(ConfigError, match=r"hosts\.a100\.shares names pool 'embed'"):
        load(types={"a100": {"usd_per_hour": 1, "shares": {"embed": 1}}})
    with pytest.raises(ConfigError, match="one of the shares must be above 0"):
        load(types={"a100": {"usd_per_hour": 1, "shares": {"chat": 0}}})
