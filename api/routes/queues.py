"""`/v1/queues`: how full each queue is, and how fast it drains."""

from flask import Blueprint, Response

from api.deps import answer, caller, deps
from api.schemas.jobs import QueueBody, QueueList
from headrace.jobs import Lane
from headrace.queues import OVERFLOW, queue_name

blueprint = Blueprint("queues", __name__, url_prefix="/v1/queues")


@blueprint.get("")
def list_all() -> Response:
    """Every queue as it stands."""
    caller()
    pools = [*deps().settings.pools, *([OVERFLOW] if deps().settings.openai_api_key else [])]
    places = {queue_name(pool, lane): (pool, lane) for pool in pools for lane in Lane}
    depths = deps().admission.depths(list(places))
    return answer(QueueList(data=[_body(queue, *place, depths[queue]) for queue, place in places.items()]))


def _body(queue: str, pool: str, lane: Lane, depth: int) -> QueueBody:
    forecast, fleet = deps().forecast, deps().catalogue.fleet(pool)
    return QueueBody(
        queue=queue,
        pool=pool,
        lane=lane,
        depth=depth,
        depth_cap=deps().settings.lane(lane).depth_cap,
        drain_jobs_per_s=forecast.drain_rate(queue),
        expected_wait_s=forecast.expected_wait_s(queue, depth + 1),
        workers=fleet.workers,
        running=fleet.running,
        slots=fleet.slots,
    )
