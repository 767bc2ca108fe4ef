"""Watch budgets: tell of each that comes to a threshold, once. Knows neither Celery nor what a call costs."""

import logging
from typing import Any

from headrace.budgets import reached, share
from headrace.store import budgets, deliveries, locks
from headrace.store.budgets import Account
from headrace.webhooks import BUDGET_EVENT
from scheduler.parts import Parts

logger = logging.getLogger(__name__)


def watch_budgets(parts: Parts) -> int:
    """Log each threshold that a budget has come to, and write the operator's webhook, if one is named.

    Bound: one sweep. What the account says was told is told by one, of however many control processes; the webhook is
    written in the same transaction, so that none is lost and none is doubled.
    Returns: thresholds that were told of.
    """
    settings = parts.settings.budgets
    with parts.store.begin() as db:
        if not locks.try_take(db, "watch_budgets"):
            return 0
        # In the order in which calls lock them.
        accounts = sorted(budgets.current(db, settings), key=_turn)
        told = [
            _facts(account, percent)
            for account in accounts
            for percent in _reached(account)
            if budgets.tell(db, account.id, percent)
        ]
        for facts in told:
            if settings.webhook_url:
                deliveries.add(db, BUDGET_EVENT, settings.webhook_url, facts)
    for facts in told:
        logger.warning("budget_used", extra=facts)
    return len(told)


def _turn(account: Account) -> tuple[bool, str, bool]:
    return account.app is not None, account.app or "", account.period == "day"


def _reached(account: Account) -> tuple[int, ...]:
    if account.limit_usd is None:
        return ()
    return reached(account.used_usd, account.limit_usd, is_short=account.is_short)


def _facts(account: Account, percent: int) -> dict[str, Any]:
    """What is told. Amounts are text, exact."""
    assert account.limit_usd is not None
    return {
        "app": account.app,
        "period": account.period,
        "starts_at": account.starts_at.isoformat(),
        "threshold_percent": percent,
        "limit_usd": f"{account.limit_usd.normalize():f}",
        "used_usd": f"{account.used_usd.normalize():f}",
        "share": round(float(share(account.used_usd, account.limit_usd)), 4),
    }
