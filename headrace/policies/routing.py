"""Where a job may go, best first, and why. Pure: `admission` takes the place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from headrace.config import LaneSettings, OverflowSettings
from headrace.domain.budgets import Lack, NoBudget, Shortfall
from headrace.domain.jobs import JobSpec
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import OVERFLOW, Candidate, Overflow, Route, queue_name
from headrace.errors import BudgetExceeded, InvalidRequest, UnknownPrice
from headrace.policies.pricing import Tariff


@dataclass(frozen=True, slots=True)
class Pressure:
    """How far behind a queue of ours is.

    Attributes:
        jobs: that wait in it.
        slots: of its pool.
        kv_use: share of the pool's KV cache that is in use; None when nobody says.
    """

    jobs: int
    slots: int
    kv_use: float | None


def spill_reason(pressure: Pressure, overflow: OverflowSettings, *, is_on: bool) -> str | None:
    """Why new jobs of a queue should go to the paid API before they wait there; None while they need not.

    A cache that is full says only that the pool is busy, which the KV ledger is there for: it counts once as many jobs
    wait as run at a time.

    Args:
        is_on: they do so now: they come back when the pressure is well below what sent them away.
    """
    share = overflow.back_at if is_on else 1.0
    if pressure.jobs >= overflow.spill_depth * share:
        return f"own queue deep: {pressure.jobs} jobs, spill_depth is {overflow.spill_depth}"
    is_full = pressure.kv_use is not None and pressure.kv_use >= overflow.spill_kv_use * share
    if is_full and pressure.jobs >= max(1, pressure.slots * share):
        return f"own cache full: {pressure.kv_use:.0%} of it, spill_kv_use is {overflow.spill_kv_use:.0%}"
    return None


def candidates(
    spec: JobSpec,
    lane: LaneSettings,
    tariff: Tariff,
    *,
    ahead_cap_tokens: Callable[[str], int | None],
    free_until: Callable[[str], int],
    api_is_open: bool,
    has_workers: bool = True,
    lacking: Callable[[Decimal], Lack | None] = lambda _: None,
    spill_reason: str | None = None,
) -> tuple[Candidate, ...]:
    """The queues this job may be put into, best first: its own, and overflow where its owner allows it.

    Args:
        has_workers: False for a pool that the paid API alone answers: then its only way is overflow.
        ahead_cap_tokens, free_until: of a queue: see `Candidate`.
        api_is_open: False while no key for the paid API is set, or no worker calls it.
        spill_reason: why overflow comes before its own queue; None while it comes after it.
        lacking: why no budget pays for so many USD; None when one does.
    Raises:
        InvalidRequest, BudgetExceeded: there is none: overflow is its only way, and closed to it, or without money.
    """

    def candidate(pool: str, reason: str) -> Candidate:
        queue = queue_name(pool, spec.lane)
        caps = lane.depth_cap, lane.backlog_cap_tokens, ahead_cap_tokens(queue)
        return Candidate(queue, *caps, reason, free_until(queue))

    if spec.overflow is Overflow.NEVER:
        _check_stays(spec, has_workers)
        return (candidate(spec.pool, "own pool"),)
    closed = objection(spec, tariff, lacking) if api_is_open else _closed(_NOT_SET_UP)
    if spec.overflow is Overflow.ALLOW and has_workers:
        own = candidate(spec.pool, "own pool")
        paid = () if closed else (candidate(OVERFLOW, spill_reason or "own queue full"),)
        return (*paid, own) if spill_reason else (own, *paid)
    if closed:
        raise _refused(closed)
    return (candidate(OVERFLOW, "overflow only" if has_workers else "no pool of its own"),)


def _check_stays(spec: JobSpec, has_workers: bool) -> None:
    if not has_workers:
        message = f"'{spec.model}' is answered by the paid API alone: leave 'overflow' out, or name another model."
        raise InvalidRequest(message, param="overflow")


def _refused(closed: InvalidRequest | Lack) -> InvalidRequest | BudgetExceeded:
    if isinstance(closed, NoBudget):
        return BudgetExceeded(f"The paid API is shut: {closed}.", reason="budget")
    if isinstance(closed, Shortfall):
        return BudgetExceeded(f"No money is left for this job: {closed}.", reason="budget")
    return closed


class Payable(Protocol):
    """What the price of a job depends on, and what its owner pays at most."""

    @property
    def model(self) -> str: ...
    @property
    def messages(self) -> Sequence[Message]: ...
    @property
    def sampling(self) -> Sampling: ...
    @property
    def max_cost_usd(self) -> Decimal | None: ...


def route_of(queue: str) -> Route:
    """Which way a queue leads."""
    return Route.OVERFLOW if queue.startswith(f"{OVERFLOW}.") else Route.POOL


_NOT_SET_UP = "none is set up (OPENAI_API_KEY)"


def _closed(why: str, param: str = "overflow") -> InvalidRequest:
    return InvalidRequest(f"The paid API cannot answer this job: {why}.", param=param)


def objection(spec: Payable, tariff: Tariff, lacking: Callable[[Decimal], Lack | None]) -> InvalidRequest | Lack | None:
    """Why the paid API is closed to this job, or None."""
    try:
        most_usd = tariff.ceiling_usd(spec.model, spec.messages, spec.sampling)
    except UnknownPrice as error:
        return _closed(str(error).removesuffix("."))
    if spec.max_cost_usd is not None and most_usd > spec.max_cost_usd:
        why = f"it may cost {most_usd:f} USD, more than max_cost_usd {spec.max_cost_usd:f}"
        return _closed(why, "max_cost_usd")
    return lacking(most_usd)
