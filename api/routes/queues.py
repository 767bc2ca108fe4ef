"""`/v1/queues`: how full each queue is, and how fast it drains."""

from flask import Blueprint, Response

from api.deps import answer, caller, deps
from api.schemas.queues import QueueBody, QueueList
from headrace.domain.places import Load
from headrace.domain.queues import OVERFLOW, Lane, queue_name

blueprint = Blueprint("queues", __name__, url_prefix="/v1/queues")


@blueprint.get("")
def list_all() -> Response:
    """Every queue as it stands."""
    caller()
    return answer(QueueList(data=every_queue()))


def every_queue() -> list[QueueBody]:
    """Every queue as it stands. Raises: BrokerUnavailable. StoreUnavailable."""
    pools = [*deps().settings.own_pools, *([OVERFLOW] if deps().settings.openai_api_key else [])]
    places = {queue_name(pool, lane): (pool, lane) for pool in pools for lane in Lane}
    loads = deps().admission.loads(list(places))
    return [_body(queue, *place, loads[queue]) for queue, place in places.items()]


def _body(queue: str, pool: str, lane: Lane, load: Load) -> QueueBody:
    now, settings, of_pool = (
        deps().forecast.pool(pool),
        deps().settings.lane(lane, pool),
        deps().settings.pools.get(pool),
    )
    return QueueBody(
        queue=queue,
        pool=pool,
        lane=lane,
        depth=load.jobs,
        depth_cap=settings.depth_cap,
        backlog_tokens=load.tokens,
        expected_tokens=load.expected_tokens,
        backlog_cap_tokens=settings.backlog_cap_tokens,
        apps=load.apps,
        takes=settings.takes,
        max_wait_s=settings.default_max_wait_s(is_interactive=False),
        interactive_max_wait_s=settings.default_max_wait_s(is_interactive=True),
        latency_goal_s=of_pool.latency_goal_s if of_pool else None,
        drain_tokens_per_s=round(now.drain_tokens_per_s, 1) if now.is_measured else None,
        expected_wait_s=deps().forecast.wait_if_submitted_s(queue),
        workers=now.fleet.workers,
        running=now.fleet.running,
        slots=now.fleet.slots,
    )
