"""What the service tells beside its jobs: its models and queues, an app's usage, and whether the process can serve.

`/healthz` (the process lives), `/readyz` (it can serve, or the reasons why it cannot) and `/version` need no key, so
each costs little, at any rate of calls. `/healthz` needs no thread either: it answers while all of them wait for a
server that is silent, and the process is not restarted for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, partial
from importlib.metadata import version as release_of

from api.call import Call, Operation, Reply
from api.deps import WebDeps
from api.door.catalogue import no_such_model
from api.handlers.replies import reply_of
from api.handlers.submitting import listed, query
from api.schemas.fields import unserved
from api.schemas.reports import (
    MOST_ROWS,
    Health,
    ModelBody,
    ModelList,
    QueueBody,
    QueueList,
    Readiness,
    UsageList,
    UsageQuery,
    Version,
)
from headrace.config.rules import AUTO
from headrace.domain.apps import App, UsageSplit
from headrace.domain.places import Load
from headrace.domain.queues import OVERFLOW, Lane, queue_name
from headrace.errors import InvalidRequest, SlotsFull
from headrace.store import clock
from headrace.store.money.costs import Period, usage


def list_models(web: WebDeps, _call: Call) -> Reply:
    """Every model."""
    return reply_of(ModelList(data=[ModelBody(id=name) for name in _model_names(web)]))


def read_model(web: WebDeps, _call: Call, name: str) -> Reply:
    """One model."""
    # A path of any characters takes the slash at its end for one of them.
    named = name.rstrip("/")
    if named not in _model_names(web) and not web.catalogue.has(named):
        raise no_such_model(named)
    return reply_of(ModelBody(id=named))


def _model_names(web: WebDeps) -> list[str]:
    return [*web.catalogue.names(), *([AUTO] if web.settings.rules else [])]


MODELS = (
    Operation("get", "/v1/models", list_models, "OpenAI", "List the models", ModelList),
    # A Hugging Face id contains a slash.
    Operation(
        *("get", "/v1/models/{name}", read_model, "OpenAI", "Read a model", ModelBody),
        refusals=(404,),
        takes_slashes=True,
    ),
)


def list_queues(web: WebDeps, _call: Call) -> Reply:
    """Every queue as it stands. Raises: BrokerUnavailable. StoreUnavailable."""
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


QUEUES = (Operation("get", "/v1/queues", list_queues, "queues", "See how full the queues are", QueueList),)


def read_usage(web: WebDeps, call: Call) -> Reply:
    """The caller's own requests that ended in these days, summed by the groups that it names."""
    asked = query(UsageQuery, call)
    by = UsageSplit(asked.groups, asked.keys(web.settings.costs.label_keys))
    with _slot(web, call.app), web.store.begin() as db:
        days = asked.days(clock.now(db).astimezone(UTC).date())
        found = usage(db, call.app.id, _period(*days), by, MOST_ROWS + 1)
    if len(found) > MOST_ROWS:
        message = f"Invalid 'group_by': it makes more than {MOST_ROWS:,} rows. Ask for fewer days, or for fewer groups."
        raise InvalidRequest(message, param="group_by")
    return listed(web, call, lambda: UsageList.of(days, by, found))


@contextmanager
def _slot(web: WebDeps, app: App) -> Iterator[None]:
    """Hold a slot: a read_usage of months takes seconds of a connection that other apps need. Raises: SlotsFull."""
    slot = web.usage_slots.take(app.id)
    if slot is None:
        message = "This server reads as much usage at once as it may for this app. Try again."
        raise SlotsFull(message, reason="usage_slots", retry_after_s=1)
    try:
        yield
    finally:
        slot.release()


def _period(first: date, last: date) -> Period:
    since, until = (datetime.combine(day, time(), UTC) for day in (first, last + timedelta(days=1)))
    return Period(since, until)


USAGE = (
    Operation(
        *("get", "/v1/usage", read_usage, "usage", "Read what you used and were charged", UsageList),
        query=UsageQuery,
        refusals=(400,),
    ),
)


def health(_web: WebDeps, _call: Call) -> Reply:
    """The process answers."""
    return reply_of(Health())


def version(_web: WebDeps, _call: Call) -> Reply:
    """The release that answers."""
    return reply_of(_version())


@cache
def _version() -> Version:
    """Looked up once: the lookup reads files."""
    return Version(version=release_of("headrace"))


def readiness(web: WebDeps, _call: Call) -> Reply:
    """200 when every part answers, else 503."""
    failures, warnings = map(dict, web.readiness.report())
    if failures:
        return reply_of(Readiness(status="unavailable", failures=failures), 503)
    return reply_of(Readiness(status="ready", warnings=warnings))


_ALIVE = partial(Operation, tag="health", answer=Health, is_open=True, is_instant=True)
HEALTH = (
    _ALIVE("get", "/healthz", health, summary="Is the process alive?"),
    _ALIVE("get", "/health", health, summary="Is the process alive? By vLLM's path"),
    _ALIVE("get", "/ping", health, summary="Is the process alive? By SageMaker's path"),
    _ALIVE("post", "/ping", health, summary="Is the process alive? By SageMaker's path"),
    Operation("get", "/version", version, "health", "Which release answers?", Version, is_open=True),
    Operation("get", "/readyz", readiness, "health", "Can it serve?", Readiness, is_open=True),
)
