"""Prices: list prices of the paid API's models, prices of own tokens, and the tariff that follows from them.

A list price ends when an operator takes another; its amounts never change. The price of own tokens is what a saturated
host costs for each token that it serves; its rows are added, never changed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row
from sqlalchemy.dialects.postgresql import distinct_on

from headrace.config import CostSettings, Price, Settings
from headrace.policies.pricing import DatedPrice, Tariff, TokenPrices
from headrace.store.fleet.hosts import HostPrice
from headrace.tables import ledger, list_prices, own_prices


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


def list_in_force(db: Connection) -> dict[str, DatedPrice]:
    """The price of each model that is in force, with the time from which it counts."""
    return {row.model: DatedPrice(_list_price(row), row.valid_from) for row in db.execute(_IN_FORCE)}


def current_list(db: Connection) -> dict[str, Price]:
    """The price of each model that is in force."""
    return {model: dated.price for model, dated in list_in_force(db).items()}


def hold_list(db: Connection) -> None:
    """Let no other operator take prices until this transaction ends. Readers go on."""
    db.exec_driver_sql("LOCK TABLE list_prices IN SHARE ROW EXCLUSIVE MODE")


def take_list(db: Connection, prices: Iterable[ListPrice]) -> list[ListPrice]:
    """Put these prices in force from now on, where they differ from those in force. Returns: the new ones."""
    # Two operators at once: the second sees what the first took.
    hold_list(db)
    # Not the start of this transaction: a row that the other operator has just written may be younger than that.
    now: datetime = db.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    dated = list_in_force(db)
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


def _list_price(row: Row[Any]) -> Price:
    return Price(
        input_usd_per_mtok=row.input_usd_per_mtok,
        cached_input_usd_per_mtok=row.cached_input_usd_per_mtok,
        output_usd_per_mtok=row.output_usd_per_mtok,
        tiers={tier: Decimal(factor) for tier, factor in row.tiers.items()},
        version=f"list-{row.id}",
        source=row.source,
    )


_IN_FORCE = sa.select(list_prices).where(list_prices.c.valid_to.is_(None)).order_by(list_prices.c.model)


#: The newest charges of all pools, which show how much work the tokens of a pool's requests are.
NEWEST = 20_000
#: With fewer charges of a pool among them the mix of its tokens is unknown.
ENOUGH = 100
#: A charge this old says nothing of the present mix.
RECENT = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class OwnPrice:
    """A price of a pool's own tokens, and what it follows from.

    Attributes:
        usd_per_hour: of one host of the type.
        tokens_per_s: that one saturated host serves.
        work_per_token: of the pool's requests, which mix prompts and answers.
    """

    pool: str
    instance_type: str
    usd_per_hour: Decimal
    tokens_per_s: float
    work_per_token: float
    prices: TokenPrices


def current_own(db: Connection, settings: Settings) -> dict[str, Price]:
    """The newest price of each own pool whose host type has a price; a pool without one is absent."""
    return {pool: dated.price for pool, dated in own_in_force(db, settings).items()}


def own_in_force(db: Connection, settings: Settings) -> dict[str, DatedPrice]:
    """Like `current`, each with the time from which it counts."""
    pools = [pool for pool in settings.own_pools if HostPrice.of(settings, pool).usd_per_hour is not None]
    newest_first = sa.select(own_prices).order_by(own_prices.c.pool, own_prices.c.id.desc())
    newest = newest_first.where(own_prices.c.pool.in_(pools)).ext(distinct_on(own_prices.c.pool))
    return {row.pool: DatedPrice(_own_price(row), row.at) for row in db.execute(newest)}


def _own_price(row: Row[Any]) -> Price:
    source = f"{row.usd_per_hour.normalize():f} USD/h of {row.instance_type} over {row.tokens_per_s:,.0f} tokens/s"
    return Price(
        input_usd_per_mtok=row.input_usd_per_mtok,
        cached_input_usd_per_mtok=row.cached_input_usd_per_mtok,
        output_usd_per_mtok=row.output_usd_per_mtok,
        version=f"hosts-{row.id}",
        source=source,
    )


def add_own(db: Connection, price: OwnPrice) -> None:
    """Add a price, which counts from now on."""
    values = {name: getattr(price, name) for name in price.__dataclass_fields__ if name != "prices"}
    values |= {name: getattr(price.prices, name) for name in price.prices.__dataclass_fields__}
    db.execute(sa.insert(own_prices).values(values))


def work_per_token(db: Connection, pool: str, costs: CostSettings) -> float | None:
    """The mean work of a token of the pool's last requests; None before enough of them.

    Reads only the newest `NEWEST` charges of all pools.
    """
    charges = sa.select(ledger).order_by(ledger.c.id.desc()).limit(NEWEST).subquery().c
    cached = sa.func.sum(charges.cached_tokens)
    prompt, output = sa.func.sum(charges.prompt_tokens), sa.func.sum(charges.output_tokens)
    is_ours = (charges.pool == pool, charges.kind == "compute", charges.at > sa.func.now() - RECENT)
    row = db.execute(sa.select(sa.func.count(), prompt, cached, output).where(*is_ours)).one()
    count, prompt_tokens, cached_tokens, output_tokens = row
    if count < ENOUGH or not prompt_tokens + output_tokens:
        return None
    work = prompt_tokens - cached_tokens + costs.cached_weight * cached_tokens + costs.output_weight * output_tokens
    return float(work / (prompt_tokens + output_tokens))


def in_force(db: Connection, settings: Settings) -> Tariff:
    """The prices of this moment. A price in `headrace.toml` overrides the model's list price."""
    tariff = Tariff.of(settings).with_list(current_list(db))
    return tariff.with_own(current_own(db, settings))
