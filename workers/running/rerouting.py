"""Where a job goes that the paid API is closed to. Pure."""

from collections.abc import Collection

from headrace.domain.attempts import Claim, Reroute
from headrace.domain.queues import OVERFLOW, Overflow, Route, queue_name
from headrace.errors import EngineUnavailable
from headrace.policies.overflow import Objection
from headrace.policies.retries import backoff_s
from headrace.store.jobs.spills import TURNED_AWAY

#: Objections that may hold no more in a while.
_PASSING = frozenset({"budget_exceeded", "overflow_unavailable", EngineUnavailable.code})


def next_queue(claim: Claim, objection: Objection, paid_pools: Collection[str], longer: float = 0.0) -> Reroute | None:
    """Back to its own pool. Where the paid API alone answers that, it waits, for as long as its `start_by` allows.

    Args:
        paid_pools: those that the paid API alone answers.
        longer: the share by which its wait is longer; see `retry.jitter`.
    Returns: None where it has failed: it insists on the paid API, or nothing would come of its wait, or would end it.
    """
    if claim.overflow is Overflow.ONLY:
        return None
    if claim.pool not in paid_pools:
        return Reroute(queue_name(claim.pool, claim.lane), Route.POOL, f"{TURNED_AWAY}{objection.message}")
    if objection.code not in _PASSING or claim.attempt > 1:
        return None
    # Each wait is a new number, and longer than the last.
    delay_s = backoff_s(1 + claim.enqueue_no) * (1 + longer)
    return Reroute(queue_name(OVERFLOW, claim.lane), Route.OVERFLOW, f"waits: {objection.message}", delay_s)
