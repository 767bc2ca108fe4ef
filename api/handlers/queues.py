"""`/v1/queues`: how full each queue is, and how fast it drains."""

from api.call import Call, Reply
from api.deps import WebDeps
from api.handlers.operation import Operation
from api.handlers.submitting import reply_of
from api.schemas.queues import QueueBody, QueueList
from headrace.domain.places import Load
from headrace.domain.queues import OVERFLOW, Lane, queue_name


def list_all(web: WebDeps, _call: Call) -> Reply:
    """Every queue as it stands. Raises: BrokerUnavailable. StoreUnavailable."""
    pools = [*web.settings.own_pools, *([OVERFLOW] if web.settings.openai_api_key else [])]
    places = {queue_name(pool, lane): (pool, lane) for pool in pools for lane in Lane}
    loads = web.admission.loads(list(places))
    return reply_of(QueueList(data=[_body(web, queue, *place, loads[queue]) for queue, place in places.items()]))


def _body(web: WebDeps, queue: str, pool: str, lane: Lane, load: Load) -> QueueBody:
    now, settings, of_pool = web.forecast.pool(pool), web.settings.lane(lane, pool), web.settings.pools.get(pool)
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
        expected_wait_s=web.forecast.wait_if_submitted_s(queue),
        workers=now.fleet.workers,
        running=now.fleet.running,
        slots=now.fleet.slots,
    )


OPERATIONS = (Operation("get", "/v1/queues", list_all, "queues", "See how full the queues are", QueueList),)
