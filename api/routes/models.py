"""`/v1/models` and `/v1/queues`: what answers, and how full its queues are."""

from flask import Blueprint, Response

from api.calls import parts
from api.deps import WebDeps
from api.door.catalogue import no_such_model
from api.routes.operations import describes
from api.routes.replies import reply_of
from api.schemas.fields import unserved
from api.schemas.reports import ModelBody, ModelList, QueueBody, QueueList
from headrace.config.rules import AUTO
from headrace.domain.places import Load
from headrace.domain.queues import OVERFLOW, Lane, queue_name

QUEUES = Blueprint("queues", __name__)
MODELS = Blueprint("models", __name__)


@QUEUES.get("/v1/queues")
@describes("queues", "See how full the queues are", QueueList)
def list_queues() -> Response:
    """Lists every queue as it stands. Raises: BrokerUnavailable. StoreUnavailable."""
    web = parts()
    pools = [*web.settings.own_pools, *([OVERFLOW] if web.settings.openai_api_key else [])]
    places = {queue_name(pool, lane): (pool, lane) for pool in pools for lane in Lane}
    loads = web.admission.loads(list(places))
    return reply_of(QueueList(data=[_queue(web, queue, *place, loads[queue]) for queue, place in places.items()]))


def _queue(web: WebDeps, queue: str, pool: str, lane: Lane, load: Load) -> QueueBody:
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
        **unserved(web.vacancies.find(pool)),
        workers=now.fleet.workers,
        running=now.fleet.running,
        slots=now.fleet.slots,
    )


@MODELS.get("/v1/models")
@describes("OpenAI", "List the models", ModelList)
def list_models() -> Response:
    """Lists every model."""
    return reply_of(ModelList(data=[ModelBody(id=name) for name in _model_names(parts())]))


# A Hugging Face id contains a slash.
@MODELS.get("/v1/models/<path:name>")
@describes("OpenAI", "Read a model", ModelBody, refusals=(404,))
def read_model(name: str) -> Response:
    """Reads one model."""
    # A path of any characters takes the slash at its end for one of them.
    named = name.rstrip("/")
    if named not in _model_names(parts()) and not parts().catalogue.has(named):
        raise no_such_model(named)
    return reply_of(ModelBody(id=named))


def _model_names(web: WebDeps) -> list[str]:
    return [*web.catalogue.names(), *([AUTO] if web.settings.rules else [])]
