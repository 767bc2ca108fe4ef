"""Close the hours of own hosts: share each hour's bill among the requests that ended in it."""

import logging

from headrace.errors import StoreUnavailable
from headrace.store import locks
from headrace.store.money import cost_hours
from headrace.store.money.cost_hours import HostBill
from scheduler.deps import ControlDeps

log = logging.getLogger(__name__)


def close_hours(deps: ControlDeps) -> int:
    """Close the hours that are over, and those of the last week whose bill has changed since.

    Bound: `cost_hours.SETTLE` after the hour, and one sweep. After a long stop it closes `cost_hours.MOST_HOURS` at a
    time, and is repeated at once.
    Returns: hours that were closed.
    """
    with deps.store.begin() as db:
        locks.take(db, "close_hours")
        bills = cost_hours.open_bills(db)
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
