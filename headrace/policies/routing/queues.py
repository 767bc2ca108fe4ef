"""The queues that a job may go to, best first, and why. Pure: `admission` takes the place."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from headrace.config import LaneSettings, OverflowSettings
from headrace.domain.jobs import JobSpec
from headrace.domain.limits.budgets import Lack, NoBudget, Shortfall
from headrace.domain.queues import OVERFLOW, Candidate, Overflow, Route, queue_name
from headrace.errors import BudgetExceeded, GoalMissed, InvalidRequest
from headrace.policies.overflow import TOO_DEAR, Objection, Quote, quote
from headrace.policies.pricing import Tariff


@dataclass(frozen=True, slots=True)
class Pressure:
    """How far a pool's own queue is behind.

    Attributes:
        jobs: jobs that wait in it.
        slots: slots of its pool.
        kv_use: share of the pool's KV cache in use; None if unknown.
        free: jobs that its workers take at once.
    """

    jobs: int
    slots: int
    kv_use: float | None
    free: int = 0

    @property
    def behind(self) -> int:
        """Jobs that wait although the workers take what they can. None do while own GPUs idle."""
        return max(0, self.jobs - self.free)


def spill_reason(
    pressure: Pressure, overflow: OverflowSettings, *, is_on: bool, is_cheaper: bool = False
) -> str | None:
    """Why new jobs should spill to the paid API instead of waiting in this queue; None if they should wait.

    A full KV cache alone is no reason: the KV ledger is meant to fill it. It counts only once as many jobs wait as the
    pool has slots.

    Args:
        is_on: True while jobs spill. They stop only when the pressure is well below the threshold (hysteresis).
        is_cheaper: the paid API is cheaper than one more host, so that none will be added for jobs that wait long. They
            spill once a whole batch waits before them; where no worker is ready, at once.
    """
    share = overflow.back_at if is_on else 1.0
    if pressure.behind >= overflow.spill_depth * share:
        return f"own queue deep: {pressure.behind} jobs beyond free slots, spill_depth is {overflow.spill_depth}"
    if is_cheaper and pressure.behind >= pressure.slots * share:
        return (
            f"own hosts full: {pressure.behind} jobs beyond free slots, and the paid API is cheaper than another host"
        )
    is_full = pressure.kv_use is not None and pressure.kv_use >= overflow.spill_kv_use * share
    if is_full and pressure.jobs >= max(1, pressure.slots * share):
        return f"own cache full: {pressure.kv_use:.0%} of it, spill_kv_use is {overflow.spill_kv_use:.0%}"
    return None


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions under which a job is routed.

    Attributes:
        ahead_cap_tokens, free_until: of a queue: see `Candidate`.
        api_is_open: False while no key for the paid API is set, or no worker calls it.
        has_workers: False for a pool that only the paid API serves: its jobs can go to overflow only.
        lacking: why the budgets do not pay this many USD; None if they do.
        spill_reason: why overflow comes before its own queue; None to put overflow after it.
        miss_reason: why its own pool would answer later than the pool's latency goal; None if it would not.
    """

    ahead_cap_tokens: Callable[[str], int | None]
    free_until: Callable[[str], int]
    api_is_open: bool
    has_workers: bool = True
    lacking: Callable[[Decimal], Lack | None] = lambda _: None
    spill_reason: str | None = None
    miss_reason: str | None = None


def candidates(
    spec: JobSpec, lane: Callable[[str], LaneSettings], tariff: Tariff, now: Conditions
) -> tuple[Candidate, ...]:
    """The queues that this job may go to, best first: its own, and overflow if its owner allows it.

    Args:
        lane: the settings of the job's lane in a pool.

    Raises:
        InvalidRequest, BudgetExceeded: no queue is left: the job can go to overflow only, and the paid API is closed
            to it, or the budgets do not pay for it.
        GoalMissed: its own pool would answer too late, and overflow is closed to it.
    """

    def candidate(pool: str, reason: str) -> Candidate:
        queue, caps = queue_name(pool, spec.lane), lane(pool)
        ahead_cap_tokens, free_until = now.ahead_cap_tokens(queue), now.free_until(queue)
        return Candidate(queue, caps.depth_cap, caps.backlog_cap_tokens, ahead_cap_tokens, reason, free_until)

    if spec.overflow is Overflow.NEVER:
        _check_stays(spec, now.has_workers)
        if now.miss_reason:
            raise _goal_missed(now.miss_reason)
        return (candidate(spec.pool, "own pool"),)
    quoted = quote(spec, tariff, now.lacking, is_set_up=now.api_is_open)
    if spec.overflow is Overflow.ALLOW and now.has_workers:
        why_paid = now.miss_reason or now.spill_reason or "own queue full"
        paid = (candidate(OVERFLOW, why_paid),) if isinstance(quoted, Quote) else ()
        if now.miss_reason:
            if not paid:
                raise _goal_missed(now.miss_reason)
            return paid
        own = candidate(spec.pool, "own pool")
        return (*paid, own) if now.spill_reason else (own, *paid)
    if isinstance(quoted, Objection):
        raise _refused(quoted, spec, "overflow" if now.has_workers else "model")
    return (candidate(OVERFLOW, "overflow only" if now.has_workers else "no pool of its own"),)


def _check_stays(spec: JobSpec, has_workers: bool) -> None:
    if not has_workers:
        message = f"'{spec.model}' is answered by the paid API alone: leave 'overflow' out, or name another model."
        raise InvalidRequest(message, param="overflow")


def _goal_missed(reason: str) -> GoalMissed:
    message = f"Refused for the {reason}. Ask for fewer tokens, name another model, or submit it as a background job."
    return GoalMissed(message, reason="latency_goal")


def _refused(objection: Objection, spec: JobSpec, param: str) -> InvalidRequest | BudgetExceeded:
    """Args: param: the field by which the job can go to overflow only."""
    if isinstance(objection.lack, NoBudget):
        return BudgetExceeded(f"The paid API is shut: {objection.lack}.", reason="budget")
    if isinstance(objection.lack, Shortfall):
        return BudgetExceeded(f"No money is left for this job: {objection.lack}.", reason="budget")
    why = objection.message.removesuffix(".")
    if objection.code == TOO_DEAR:
        why = f"it may cost {objection.most_usd:f} USD, more than max_cost_usd {spec.max_cost_usd:f}"
        param = "max_cost_usd"
    return InvalidRequest(f"The paid API cannot answer this job: {why}.", param=param)


def route_of(queue: str) -> Route:
    """The route of a queue."""
    return Route.OVERFLOW if queue.startswith(f"{OVERFLOW}.") else Route.POOL
