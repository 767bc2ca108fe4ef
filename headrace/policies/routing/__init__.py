"""Where a job may go, and why: the queues of a pool, best first, and the pools of the model `auto`. Pure.

`Admission.reserve` (`headrace/broker`) takes the place.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from headrace.config import LaneSettings, OverflowSettings
from headrace.config.rules import RuleSettings
from headrace.domain.jobs import JobSpec
from headrace.domain.limits import Lack, NoBudget, Shortfall
from headrace.domain.queues import OVERFLOW, Candidate, Overflow, Route, queue_name
from headrace.errors import BudgetExceeded, GoalMissed, InvalidRequest
from headrace.policies.overflow import TOO_DEAR, Objection, Quote, quote
from headrace.policies.pricing import Tariff


@dataclass(frozen=True, slots=True)
class Pressure:
    """How far a pool's own queue is behind.

    Attributes:
        jobs: jobs that wait in it and in the lanes above.
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
        ahead_cap_tokens, free_until: return those of a queue; see `Candidate`.
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
    spec: JobSpec, lane: Callable[[str], LaneSettings], tariff: Tariff, conditions: Conditions
) -> tuple[Candidate, ...]:
    """The queues that this job may go to, best first: its own, and overflow if its owner allows it.

    Args: lane: the settings of the job's lane in a pool.

    Raises:
        InvalidRequest, BudgetExceeded: no queue is left: the job can go to overflow only, and the paid API is closed
            to it, or the budgets do not pay for it.
        GoalMissed: its own pool would answer too late, and overflow is closed to it.
    """

    def candidate(pool: str, reason: str) -> Candidate:
        queue, caps = queue_name(pool, spec.lane), lane(pool)
        ahead_cap_tokens, free_until = conditions.ahead_cap_tokens(queue), conditions.free_until(queue)
        return Candidate(queue, caps.depth_cap, caps.backlog_cap_tokens, ahead_cap_tokens, reason, free_until)

    if spec.overflow is Overflow.NEVER:
        _check_stays(spec, conditions.has_workers)
        if conditions.miss_reason:
            raise _goal_missed(conditions.miss_reason)
        return (candidate(spec.pool, "own pool"),)
    quoted = quote(spec, tariff, conditions.lacking, is_set_up=conditions.api_is_open)
    if spec.overflow is Overflow.ALLOW and conditions.has_workers:
        why_paid = conditions.miss_reason or conditions.spill_reason or "own queue full"
        paid = (candidate(OVERFLOW, why_paid),) if isinstance(quoted, Quote) else ()
        if conditions.miss_reason:
            if not paid:
                raise _goal_missed(conditions.miss_reason)
            return paid
        own = candidate(spec.pool, "own pool")
        return (*paid, own) if conditions.spill_reason else (own, *paid)
    if isinstance(quoted, Objection):
        raise _refused(quoted, spec, "overflow" if conditions.has_workers else "model")
    return (candidate(OVERFLOW, "overflow only" if conditions.has_workers else "no pool of its own"),)


#: The remedy where the paid API alone answers, and may not.
OVERFLOW_OUT = "leave 'overflow' out"


def _check_stays(spec: JobSpec, has_workers: bool) -> None:
    if not has_workers:
        message = f"'{spec.model}' is answered by the paid API alone: {OVERFLOW_OUT}, or name another model."
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
    return Route.OVERFLOW if queue.startswith(f"{OVERFLOW}.") else Route.POOL


#: The share of a goal that the expected latency may take: expectations are means, and the goal is for nearly all
#: callers.
PLANNED_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class LatencyGoal:
    """A pool's goal for one job whose caller waits or streams.

    Attributes:
        goal_s: seconds from the job's acceptance to the end of its answer.
        run_s: how long the job will likely run; None while the pool has ended no job lately, which leaves all that is
            planned for the wait.
    """

    pool: str
    goal_s: float
    run_s: float | None = None

    @property
    def planned_s(self) -> float:
        """What the expected latency may be."""
        return self.goal_s * PLANNED_SHARE

    @property
    def start_within_s(self) -> float:
        """Seconds within which the job must start; 0 if it is too late already."""
        return max(0.0, self.planned_s - (self.run_s or 0.0))

    @property
    def miss_reason(self) -> str | None:
        """Why the pool misses its goal even if the job starts at once; None if it does not."""
        if self.run_s is None or self.run_s < self.planned_s:
            return None
        return (
            f"latency goal: the answer would take about {self.run_s:.1f} s, and pool '{self.pool}' accepts up to "
            f"{self.planned_s:.3g} s, {PLANNED_SHARE:.0%} of its goal of {self.goal_s:.3g} s"
        )


# Rules: which pools can answer a job of the model `auto`, and which of them costs least.


@dataclass(frozen=True, slots=True)
class Traits:
    """What the rules see of a job.

    Attributes:
        task: the task in its metadata; None without one.
        prompt_chars: characters of all messages together.
        output_tokens: the length that its answer is expected to have in a pool.
    """

    app: str
    task: str | None
    prompt_chars: int
    wants_json: bool
    output_tokens: Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Offer:
    """What a job costs in one pool.

    Attributes:
        usd: by the price of one more host of the pool, or by the paid API's; None if no price is known.
        is_idle: own workers have free slots for it, which are paid for anyway.
    """

    pool: str
    usd: Decimal | None
    is_idle: bool = False

    @property
    def marginal_usd(self) -> Decimal:
        """What the job adds to the bill; infinite where no price is known."""
        return Decimal(0) if self.is_idle else Decimal("Infinity") if self.usd is None else self.usd


def matching(rules: Mapping[str, RuleSettings], job: Traits) -> tuple[str, RuleSettings] | None:
    """The first rule that matches the job, with its name; None if none does."""
    return next(((name, rule) for name, rule in rules.items() if _matches(rule, job)), None)


def _matches(rule: RuleSettings, job: Traits) -> bool:
    return (
        (not rule.apps or job.app in rule.apps)
        and (not rule.tasks or job.task in rule.tasks)
        and rule.wants_json in (None, job.wants_json)
        and (rule.max_prompt_chars is None or job.prompt_chars <= rule.max_prompt_chars)
        and (rule.max_output_tokens is None or job.output_tokens(rule.pools[0]) <= rule.max_output_tokens)
    )


def cheapest_first(offers: Iterable[Offer]) -> list[Offer]:
    """The offers by what the job adds to the bill; then by its price; equal ones stay in their order."""
    return sorted(offers, key=lambda each: (each.marginal_usd, each.usd is None, each.usd or Decimal(0)))


def offer_reason(rule: str, offer: Offer, before: Iterable[str]) -> str:
    """Why this pool is tried. Args: before: the pools that were tried before it, and had no place for the job."""
    passed = ", ".join(before)
    if passed:
        return f"rule '{rule}': {offer.pool}, after {passed} had no place"
    return f"rule '{rule}': {offer.pool} {'has free slots' if offer.is_idle else 'costs least'}"


def cascade_reason(rule: str, pool: str, before: Iterable[str]) -> str:
    """Why this pool of a cascade is tried. Args: before: as in `offer_reason`."""
    passed = ", ".join(before)
    return f"rule '{rule}': {pool}, after {passed} had no place" if passed else f"rule '{rule}': {pool} answers first"


# The shadow of a rule: which jobs another pool answers too, in the background, and which pool that is.

#: The random bits at the end of a job's id that decide.
_BITS = 32


def is_sampled(job_id: UUID, share: float) -> bool:
    """Whether this job is one of the share. A job's id decides, so that a repeat decides alike."""
    return (job_id.int & (1 << _BITS) - 1) < share * (1 << _BITS)


def shadow_pool(rule: RuleSettings, pool: str) -> str | None:
    """The pool that answers too: the next one of the rule, or for its last the one before. None without another."""
    pools = list(dict.fromkeys(rule.pools))
    if pool not in pools or len(pools) < 2:
        return None
    at = pools.index(pool)
    return pools[at + 1] if at + 1 < len(pools) else pools[at - 1]
