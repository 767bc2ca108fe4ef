"""Where a job goes when the paid API cannot take it. Pure."""

from collections.abc import Collection

from headrace.domain.attempts import Claim, Reroute
from headrace.domain.queues import OVERFLOW, Overflow, Route, queue_name
from headrace.errors import EngineUnavailable
from headrace.policies.overflow import Objection
from headrace.policies.retries import backoff_s
from headrace.store.jobs.spills import TURNED_AWAY

#: Objections that may pass after a while.
_PASSING = frozenset({"budget_exceeded", "overflow_unavailable", EngineUnavailable.code})


def next_queue(claim: Claim, objection: Objection, paid_pools: Collection[str], longer: float = 0.0) -> Reroute | None:
    """Return the job's own pool. If only the paid API answers that pool, the job waits, until its `start_by` at most.

    Args:
        paid_pools: the pools that only the paid API answers.
        longer: the share by which its wait is longer; see `retries.jitter`.
    Returns: None if the job fails: it allows only the paid API, waiting cannot help, or `start_by` no longer bounds
        the wait because an attempt has counted.
    """
    if claim.overflow is Overflow.ONLY:
        return None
    if claim.pool not in paid_pools:
        return Reroute(queue_name(claim.pool, claim.lane), Route.POOL, f"{TURNED_AWAY}{objection.message}")
    if objection.code not in _PASSING or claim.attempt > 1:
        return None
    # Each wait raises `enqueue_no`, so it is longer than the last.
    delay_s = backoff_s(1 + claim.enqueue_no) * (1 + longer)
    return Reroute(queue_name(OVERFLOW, claim.lane), Route.OVERFLOW, f"waits: {objection.message}", delay_s)
