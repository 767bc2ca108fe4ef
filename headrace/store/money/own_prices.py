"""Prices of own tokens: what a saturated host costs for each token that it serves. Rows are added, never changed."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row
from sqlalchemy.dialects.postgresql import distinct_on

from headrace.config import CostSettings, Price, Settings
from headrace.policies.costing import TokenPrices
from headrace.policies.pricing import DatedPrice
from headrace.store.fleet.hosts import HostPrice
from headrace.tables import ledger, own_prices

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


def current(db: Connection, settings: Settings) -> dict[str, Price]:
    """The newest price of each own pool whose host type has a price; a pool without one is absent."""
    return {pool: dated.price for pool, dated in in_force(db, settings).items()}


def in_force(db: Connection, settings: Settings) -> dict[str, DatedPrice]:
    """Like `current`, each with the time from which it counts."""
    pools = [pool for pool in settings.own_pools if HostPrice.of(settings, pool).usd_per_hour is not None]
    newest_first = sa.select(own_prices).order_by(own_prices.c.pool, own_prices.c.id.desc())
    newest = newest_first.where(own_prices.c.pool.in_(pools)).ext(distinct_on(own_prices.c.pool))
    return {row.pool: DatedPrice(_price(row), row.at) for row in db.execute(newest)}


def _price(row: Row[Any]) -> Price:
    source = f"{row.usd_per_hour.normalize():f} USD/h of {row.instance_type} over {row.tokens_per_s:,.0f} tokens/s"
    return Price(
        input_usd_per_mtok=row.input_usd_per_mtok,
        cached_input_usd_per_mtok=row.cached_input_usd_per_mtok,
        output_usd_per_mtok=row.output_usd_per_mtok,
        version=f"hosts-{row.id}",
        source=source,
    )


def add(db: Connection, price: OwnPrice) -> None:
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
