"""Where a job may go, best first, and why. Pure: `admission` takes the place."""

from collections.abc import Callable

from headrace.config import LaneSettings
from headrace.errors import InvalidRequest, UnknownPrice
from headrace.jobs import JobSpec, Overflow, Route, Usage
from headrace.pricing import Tariff, cost
from headrace.queues import OVERFLOW, Candidate, queue_name


def candidates(
    spec: JobSpec,
    lane: LaneSettings,
    tariff: Tariff,
    *,
    ahead_cap_tokens: Callable[[str], int | None],
    free_until: Callable[[str], int],
    api_is_open: bool,
) -> tuple[Candidate, ...]:
    """The queues this job may be put into, best first: its own, then overflow where its owner allows it.

    Args:
        ahead_cap_tokens: of a queue: tokens that it drains within the job's `max_wait`; None while nobody knows.
        free_until: of a queue: see `Candidate`.
        api_is_open: False while no key for the paid API is set, or no worker calls it.
    Raises: InvalidRequest: there is none, because the job insists on an overflow that is not open to it.
    """

    def candidate(pool: str, reason: str) -> Candidate:
        queue = queue_name(pool, spec.lane)
        ahead = ahead_cap_tokens(queue)
        return Candidate(queue, lane.depth_cap, lane.backlog_cap_tokens, ahead, reason, free_until(queue))

    own = candidate(spec.pool, "own pool")
    if spec.overflow is Overflow.NEVER:
        return (own,)
    objection = (
        _objection(spec, tariff) if api_is_open else "no paid API is set up (OPENAI_API_KEY, and a worker for it)"
    )
    if spec.overflow is Overflow.ALLOW:
        return (own,) if objection else (own, candidate(OVERFLOW, "own queue full"))
    if objection:
        raise InvalidRequest(f"overflow 'only' is not possible: {objection}.", param="overflow")
    return (candidate(OVERFLOW, "overflow only"),)


def route_of(queue: str) -> Route:
    """Which way a queue leads."""
    return Route.OVERFLOW if queue.startswith(f"{OVERFLOW}.") else Route.POOL


def _objection(spec: JobSpec, tariff: Tariff) -> str | None:
    """Why the paid API is closed to this job, or None."""
    try:
        price = tariff.api_price(spec.model)
    except UnknownPrice as error:
        return str(error)
    most_usd = cost(price, Usage(spec.prompt_tokens, spec.sampling.max_tokens)).usd
    if spec.max_cost_usd is not None and most_usd > spec.max_cost_usd:
        return f"it may cost {most_usd} USD, more than max_cost_usd {spec.max_cost_usd}"
    return None
