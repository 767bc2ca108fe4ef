"""Close the days that are over: sum up their charges for the views of analysts."""

import logging

from headrace.errors import StoreUnavailable
from headrace.store import locks
from headrace.store.money import cost_days
from scheduler.deps import ControlDeps

log = logging.getLogger(__name__)


def close_days(deps: ControlDeps) -> int:
    """Close the days that are over, and those of which an hour was closed since.

    Bound: `cost_hours.SETTLE` after the day, and one sweep. After a long stop, or the release that brings this sweep,
    it closes `cost_days.MOST_DAYS` at a time, and is repeated at once.
    Returns: days that were closed.
    """
    with deps.store.begin() as db:
        locks.take(db, "close_days")
        days = cost_days.open_days(db)
    for number, day in enumerate(days):
        try:
            with deps.store.begin() as db:
                cost_days.close_day(db, day)
        except StoreUnavailable:
            raise
        except Exception:
            # No later day may be closed before it: the views would read it nowhere.
            log.exception("day_not_closed", extra={"day": day.date().isoformat()})
            return number
        log.info("day_closed", extra={"day": day.date().isoformat()})
    return len(days)
