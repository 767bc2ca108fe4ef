"""The sweeps of the months: partitions are made ahead of time, and old ones leave the tables.

No job waits for them: months exist long before their first job.
"""

import logging

from headrace.store import clock, locks, months
from scheduler.deps import ControlDeps

log = logging.getLogger(__name__)


def make_months(deps: ControlDeps) -> int:
    """Make the months up to `months.AHEAD` after the present one.

    Bound: the month's predecessors, less one sweep. A sweep that does not get its locks gives way to the next one.
    Returns: months that were made.
    """
    with deps.store.begin() as db:
        locks.take(db, "months")
        made = months.make(db, clock.now(db))
    if made:
        log.info("months_made", extra={"months": made})
    return len(made)


def detach_months(deps: ControlDeps) -> int:
    """Detach the oldest month, once it ended `keep_jobs_months` months before the present one began.

    Bound: one sweep after that, and one for each further month, once its jobs have ended, its webhooks are delivered
    and its texts are erased, by their apps or by `forget_texts`. Without `keep_jobs_months` nothing is detached.
    Returns: months that were detached.
    """
    keep_months = deps.settings.keep_jobs_months
    if keep_months is None:
        return 0
    with deps.store.begin() as db:
        locks.take(db, "months")
        month = months.oldest(db, clock.now(db), keep_months)
        if month is None:
            return 0
        open_rows = months.detach(db, month)
    if open_rows:
        log.warning("month_kept", extra={"month": month.name, "has": open_rows})
        return 0
    log.info("month_detached", extra={"month": month.name})
    return 1
