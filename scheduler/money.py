"""The sweeps of money: watch budgets, price own tokens, and close the hours and the days that are over."""

import logging
from typing import Any

from sqlalchemy import Connection

from headrace.domain.limits import Account, Kind, reached, share
from headrace.errors import StoreUnavailable
from headrace.policies.pricing import TokenPrices
from headrace.policies.webhooks import BUDGET_EVENT
from headrace.store import clock, deliveries, locks
from headrace.store.fleet.hosts import HostPrice
from headrace.store.money import budgets, cost_hours, tariffs
from headrace.store.money.cost_hours import HostBill
from headrace.store.money.host_hours import HostTerms
from headrace.store.money.tariffs import OwnPrice
from headrace.store.scaling.capacity import capacity_of
from scheduler.deps import ControlDeps

log = logging.getLogger(__name__)


def watch_budgets(deps: ControlDeps) -> int:
    """Log each threshold that a budget has reached, and write the operator's webhook, if one is configured.

    Bound: one sweep. The account records each alert, so only one of several control processes sends it. The webhook is
    written in the same transaction, so that none is lost and none is doubled. The accounts of all apps together keep
    their present limit for the analysts' view `budget_run_rate`.
    """
    settings = deps.settings.budgets
    with deps.store.begin() as db:
        locks.take(db, "watch_budgets")
        # In the order in which calls lock the accounts: any other order could deadlock.
        accounts = sorted(budgets.balances(db, settings).accounts, key=_turn)
        for account in accounts:
            if account.app is None:
                budgets.note_limit(db, account)
        told = [
            _facts(account, kind, percent)
            for account in accounts
            for kind, percent in _due(account)
            if budgets.tell(db, account.id, kind, percent)
        ]
        for facts in told:
            if settings.webhook_url:
                deliveries.add(db, BUDGET_EVENT, settings.webhook_url, facts)
    for facts in told:
        log.warning("budget_used", extra=facts)
    return len(told)


def _turn(account: Account) -> tuple[bool, str, bool]:
    return account.app is not None, account.app or "", account.period == "day"


def _due(account: Account) -> list[tuple[Kind, int]]:
    """The thresholds that an account has reached: by spent money, and beyond those also by reserved money."""
    if account.limit_usd is None:
        return []
    spent = reached(account.spent_usd, account.limit_usd, is_short="spent" in account.short)
    used = reached(account.used_usd, account.limit_usd, is_short="reserved" in account.short)
    told = max(account.told_percent.get("spent", 0), *spent, 0)
    return [("spent", percent) for percent in spent] + [("reserved", percent) for percent in used if percent > told]


def _facts(account: Account, kind: Kind, percent: int) -> dict[str, Any]:
    """The fields of an alert. Amounts are exact, as text."""
    assert account.limit_usd is not None
    used_usd = account.spent_usd if kind == "spent" else account.used_usd
    return {
        "app": account.app,
        "period": account.period,
        "starts_at": account.starts_at.isoformat(),
        "kind": kind,
        "threshold_percent": percent,
        "limit_usd": f"{account.limit_usd.normalize():f}",
        "spent_usd": f"{account.spent_usd.normalize():f}",
        "reserved_usd": f"{account.reserved_usd.normalize():f}",
        "share": round(float(share(used_usd, account.limit_usd)), 4),
    }


def price_tokens(deps: ControlDeps) -> int:
    """Write the price of each pool's own tokens, where it is new or has changed.

    A pool needs a host type with a price, and hosts whose rate was measured or is set: `[hosts.TYPE]`. Until then
    `[pools.NAME.price]` counts.
    Bound: one sweep.
    """
    written = []
    with deps.store.begin() as db:
        locks.take(db, "price_tokens")
        present = tariffs.current_own(db, deps.settings)
        for pool in deps.settings.own_pools:
            price = _measured(deps, db, pool)
            before = present.get(pool)
            if price is None or (before is not None and not price.prices.differ_from(before)):
                continue
            tariffs.add_own(db, price)
            written.append(price)
    for price in written:
        facts = {"pool": price.pool, "usd_per_hour": f"{price.usd_per_hour:f}", "tokens_per_s": price.tokens_per_s}
        log.info("own_tokens_priced", extra={**facts, "input_usd_per_mtok": f"{price.prices.input_usd_per_mtok:f}"})
    return len(written)


def _measured(deps: ControlDeps, db: Connection, pool: str) -> OwnPrice | None:
    host = HostPrice.of(deps.settings, pool)
    if host.instance_type is None or host.usd_per_hour is None:
        return None
    tokens_per_s = capacity_of(db, deps.settings, pool, clock.now(db)).tokens_per_s
    per_token = tariffs.work_per_token(db, pool, deps.settings.costs)
    if not tokens_per_s or not per_token:
        return None
    prices = TokenPrices.of(host.usd_per_hour, tokens_per_s * per_token, deps.settings.costs)
    return OwnPrice(pool, host.instance_type, host.usd_per_hour, tokens_per_s, per_token, prices)


def close_hours(deps: ControlDeps) -> int:
    """Close the hours that are over, and those of the last week whose bill has changed since.

    Bound: `host_hours.SETTLE` after the hour, and one sweep. After a long stop it closes `host_hours.MOST_HOURS` at a
    time, and is repeated at once.
    """
    with deps.store.begin() as db:
        locks.take(db, "close_hours")
        bills = cost_hours.open_bills(db, HostTerms.of(deps.settings))
    # A transaction for each, since an hour may have millions of entries. Another process that closes it too changes
    # nothing by that.
    return sum(_close(deps, bill) for bill in bills)


def _close(deps: ControlDeps, bill: HostBill) -> bool:
    """Close one hour; False if that failed, which must not keep the others open. Raises: StoreUnavailable."""
    facts = {"pool": bill.pool, "hour": bill.hour.isoformat(), "bill_usd": f"{bill.bill_usd:f}"}
    try:
        with deps.store.begin() as db:
            rates = cost_hours.close_hour(db, bill, deps.settings.costs)
    except StoreUnavailable:
        raise
    except Exception:
        log.exception("hour_not_closed", extra=facts)
        return False
    log.info("hour_closed", extra={**facts, "factor": f"{rates.factor:f}"})
    return True


def close_days(deps: ControlDeps) -> int:
    """Close the days that are over, and those of which an hour was closed since.

    Bound: `host_hours.SETTLE` after the day, and one sweep. After a long stop, or the release that brings this sweep,
    it closes `cost_hours.MOST_DAYS` at a time, and is repeated at once.
    """
    with deps.store.begin() as db:
        locks.take(db, "close_days")
        cost_hours.set_label_keys(db, deps.settings.costs.label_keys)
        days = cost_hours.open_days(db)
    for number, day in enumerate(days):
        try:
            with deps.store.begin() as db:
                cost_hours.close_day(db, day)
        except StoreUnavailable:
            raise
        except Exception:
            # No later day may be closed before it: the views would read it nowhere.
            log.exception("day_not_closed", extra={"day": day.date().isoformat()})
            return number
        log.info("day_closed", extra={"day": day.date().isoformat()})
    return len(days)
