"""List prices of the paid API's models. A price ends when an operator takes another; its amounts never change."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from headrace.config import Price
from headrace.policies.pricing import DatedPrice
from headrace.tables import list_prices


@dataclass(frozen=True, slots=True)
class ListPrice:
    """The price of a paid model in a provider's list, in USD per million tokens.

    Attributes:
        model: as calls name it.
        tiers: factors of the price, by the provider's service tier.
        source: where the price comes from.
    """

    model: str
    input_usd_per_mtok: Decimal
    cached_input_usd_per_mtok: Decimal
    output_usd_per_mtok: Decimal
    tiers: Mapping[str, Decimal]
    source: str

    def costs_like(self, price: Price) -> bool:
        """Whether every call costs the same at both."""
        mine = (self.input_usd_per_mtok, self.cached_input_usd_per_mtok, self.output_usd_per_mtok)
        return (mine, dict(self.tiers)) == (
            (price.input_usd_per_mtok, price.cached_input_usd_per_mtok, price.output_usd_per_mtok),
            price.tiers,
        )


def in_force(db: Connection) -> dict[str, DatedPrice]:
    """The price of each model that is in force, with the time from which it counts."""
    return {row.model: DatedPrice(_price(row), row.valid_from) for row in db.execute(_IN_FORCE)}


def current(db: Connection) -> dict[str, Price]:
    """The price of each model that is in force."""
    return {model: dated.price for model, dated in in_force(db).items()}


def hold(db: Connection) -> None:
    """Let no other operator take prices until this transaction ends. Readers go on."""
    db.exec_driver_sql("LOCK TABLE list_prices IN SHARE ROW EXCLUSIVE MODE")


def take(db: Connection, prices: Iterable[ListPrice]) -> list[ListPrice]:
    """Put these prices in force from now on, where they differ from those in force. Returns: the new ones."""
    # Two operators at once: the second sees what the first took.
    hold(db)
    # Not the start of this transaction: a row that the other operator has just written may be younger than that.
    now: datetime = db.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    dated = in_force(db)
    before = {model: each.price for model, each in dated.items()}
    taken = [each for each in prices if each.model not in before or not each.costs_like(before[each.model])]
    for each in taken:
        # After the price before it, even if the clock of the server has gone back since, as with another server's.
        since = max(now, dated[each.model].since + timedelta(microseconds=1)) if each.model in dated else now
        is_replaced = (list_prices.c.model == each.model, list_prices.c.valid_to.is_(None))
        db.execute(sa.update(list_prices).where(*is_replaced).values(valid_to=since))
        values: dict[str, Any] = {name: getattr(each, name) for name in each.__dataclass_fields__}
        values |= {"tiers": {tier: str(factor) for tier, factor in each.tiers.items()}, "valid_from": since}
        db.execute(sa.insert(list_prices).values(values))
    return taken


def _price(row: Row[Any]) -> Price:
    return Price(
        input_usd_per_mtok=row.input_usd_per_mtok,
        cached_input_usd_per_mtok=row.cached_input_usd_per_mtok,
        output_usd_per_mtok=row.output_usd_per_mtok,
        tiers={tier: Decimal(factor) for tier, factor in row.tiers.items()},
        version=f"list-{row.id}",
        source=row.source,
    )


_IN_FORCE = sa.select(list_prices).where(list_prices.c.valid_to.is_(None)).order_by(list_prices.c.model)
