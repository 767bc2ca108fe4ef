"""Watch budgets: alert the operator once for each threshold. Knows neither Celery nor what a call costs."""

import logging
from typing import Any

from headrace.domain.limits.budgets import Account, Kind, reached, share
from headrace.policies.webhooks import BUDGET_EVENT
from headrace.store import locks
from headrace.store.money import budgets
from headrace.store.webhooks import deliveries
from scheduler.deps import ControlDeps

log = logging.getLogger(__name__)


def watch_budgets(deps: ControlDeps) -> int:
    """Log each threshold that a budget has reached, and write the operator's webhook, if one is configured.

    Bound: one sweep. The account records each alert, so only one of several control processes sends it. The webhook is
    written in the same transaction, so that none is lost and none is doubled. The accounts of all apps together keep
    their present limit for the analysts' view `budget_run_rate`.
    Returns: alerts that were sent.
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
