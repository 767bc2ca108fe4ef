"""The sweeps of the semantic cache: what its entries learn, and which of them are forgotten. No job waits for them."""

import logging

from headrace.policies.agreement import read_alike
from headrace.store import locks
from headrace.store.reuse import entries, matches
from headrace.store.reuse.matches import Due
from scheduler.deps import ControlDeps

log = logging.getLogger(__name__)


def judge_matches(deps: ControlDeps) -> int:
    """Compare the answers of jobs that ran although the semantic cache had an answer.

    Bound: one sweep after a job's end, and half of the time that it took to get there. The sweep is repeated at once
    where it found `matches.JUDGE_ROWS`.
    Returns: matches that were looked at.
    """
    with deps.store.begin() as db:
        locks.take(db, "judge_matches")
        found = matches.due(db)
        if not found:
            return 0
        waiting = [each.job_id for each in found if not each.has_ended]
        verdicts = {each.job_id: _is_right(each) for each in found if each.has_ended}
        right, wrong, void = (
            [job_id for job_id, verdict in verdicts.items() if verdict is wanted] for wanted in (True, False, None)
        )
        matches.judged(db, right=right, wrong=wrong, void=void)
        matches.put_off(db, waiting)
    for each in found:
        if (is_right := verdicts.get(each.job_id)) is not None:
            deps.tallies.compared.add(each.pool, each.kind, "right" if is_right else "wrong")
    if verdicts:
        log.info("matches_judged", extra={"right": len(right), "wrong": len(wrong), "void": len(void)})
    return len(found)


def _is_right(due: Due) -> bool | None:
    """Whether both answers say the same; None if they cannot be compared."""
    if due.is_same is None:
        return None
    return due.is_same or (due.answers is not None and read_alike(*due.answers))


def forget_entries(deps: ControlDeps) -> int:
    """Delete entries of the semantic cache that are too old, serve nothing or are too many, and old matches.

    Bound: one sweep after that, which is repeated at once where it found `entries.FORGET_ROWS`.
    Returns: rows that were deleted.
    """
    pools = deps.settings.pools.items()
    keep_s = {name: pool.cache_s for name, pool in pools if pool.semantic_cache.pool is not None}
    with deps.store.begin() as db:
        locks.take(db, "forget_entries")
        return entries.forget(db, keep_s) + matches.forget(db)
