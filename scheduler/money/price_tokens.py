"""Price own tokens: what a saturated host costs, over what it serves."""

import logging

from sqlalchemy import Connection

from headrace.policies.costing import TokenPrices
from headrace.store import clock, locks
from headrace.store.fleet.hosts import HostPrice
from headrace.store.money import own_prices
from headrace.store.money.own_prices import OwnPrice
from headrace.store.scaling.capacity import capacity
from scheduler.deps import ControlDeps

log = logging.getLogger(__name__)


def price_tokens(deps: ControlDeps) -> int:
    """Write the price of each pool's own tokens, where it is new or has changed.

    A pool needs a host type with a price, and hosts whose rate was measured or is set: `[hosts.TYPE]`. Until then
    `[pools.NAME.price]` counts.
    Bound: one sweep.
    Returns: prices that were written.
    """
    written = []
    with deps.store.begin() as db:
        locks.take(db, "price_tokens")
        present = own_prices.current(db, deps.settings)
        for pool in deps.settings.own_pools:
            price = _measured(deps, db, pool)
            before = present.get(pool)
            if price is None or (before is not None and not price.prices.differ_from(before)):
                continue
            own_prices.add(db, price)
            written.append(price)
    for price in written:
        facts = {"pool": price.pool, "usd_per_hour": f"{price.usd_per_hour:f}", "tokens_per_s": price.tokens_per_s}
        log.info("own_tokens_priced", extra={**facts, "input_usd_per_mtok": f"{price.prices.input_usd_per_mtok:f}"})
    return len(written)


def _measured(deps: ControlDeps, db: Connection, pool: str) -> OwnPrice | None:
    host = HostPrice.of(deps.settings, pool)
    if host.instance_type is None or host.usd_per_hour is None:
        return None
    tokens_per_s = capacity(db, deps.settings, pool, clock.now(db)).tokens_per_s
    per_token = own_prices.work_per_token(db, pool, deps.settings.costs)
    if not tokens_per_s or not per_token:
        return None
    prices = TokenPrices.of(host.usd_per_hour, tokens_per_s * per_token, deps.settings.costs)
    return OwnPrice(pool, host.instance_type, host.usd_per_hour, tokens_per_s, per_token, prices)
