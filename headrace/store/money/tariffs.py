"""The tariff in force: the operator's prices in `headrace.toml`, measured prices, and list prices."""

from sqlalchemy import Connection

from headrace.config import Settings
from headrace.policies.pricing import Tariff
from headrace.store.money import list_prices, own_prices


def in_force(db: Connection, settings: Settings) -> Tariff:
    """The prices of this moment. A price in `headrace.toml` overrides the model's list price."""
    tariff = Tariff.of(settings).with_list(list_prices.current(db))
    return tariff.with_own(own_prices.current(db, settings))
