"""The workers' composition root: one Celery app per role.

    celery -A workers.app:gpu worker         answers the jobs of one pool (HEADRACE_POOL)
    celery -A workers.app:overflow worker    answers jobs through the paid API
    celery -A workers.app:webhooks worker    delivers webhooks

Importing this module makes no app. The first access to a name makes its app. The engine loads when the worker starts.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from types import MappingProxyType
from typing import Any
from uuid import UUID

from celery import Celery, bootsteps
from celery.exceptions import Retry
from celery.signals import setup_logging
from celery.worker import state
from redis import RedisError

from headrace import connections, startup
from headrace.broker.admission import Admission
from headrace.broker.messages import DeliverMessage, ExecuteMessage, list_key, make_celery
from headrace.broker.remote_control import leave_cancels_to_control
from headrace.broker.transport import lane_cycles
from headrace.broker.watchdog import give_up, watch
from headrace.config import Settings
from headrace.connections.redis import redis_client
from headrace.domain.attempts import Outcome
from headrace.domain.fleet import ProcessKind
from headrace.domain.ids import parse_id
from headrace.domain.queues import DELIVER, EXECUTE, OVERFLOW, WEBHOOKS, Route, lane_queues
from headrace.errors import ConfigError, DeliveryFailed
from headrace.heartbeat import beat_in_workers
from headrace.metrics import Endpoint
from headrace.store import Store
from workers.celery import JobFailed, SendEvents, show
from workers.delivering.deliver import Deliver, DeliverySlots, OutboxTaker
from workers.delivering.posting import make_session
from workers.measuring import DeliveryMetrics
from workers.taking.taker import KvTaker
from workers.worker import Hooks, Worker

log = logging.getLogger(__name__)

#: Slots beyond the engine's own limit: the ends of finished jobs are still written while the next ones start. An engine
#: that answers within milliseconds has more jobs in their ends than in its batch. The share is not for the paid API,
#: whose calls are bounded by threads alone.
SPARE_SLOTS = 2
SPARE_SHARE = 1.5
#: New objects that trigger a garbage collection.
YOUNG_OBJECTS = 10_000


def _make_app(name: str, settings: Settings, queues: tuple[str, ...], concurrency: int) -> tuple[Celery, Store]:
    """The app of a line of the Procfile, and its Postgres."""
    setup_logging.connect(startup.log_as_json)
    app = make_celery(f"headrace.{name}", settings)
    app.conf.update(worker_pool="workers.celery:TaskPool", worker_concurrency=concurrency)
    app.amqp.queues.select(queues)
    watch(app, settings)
    startup.check_first(app, settings)
    leave_cancels_to_control()
    store = Store(connections.postgres(settings, pool_size=connections.OF_A_WORKER))
    beat_in_workers(app, ProcessKind(name), settings)
    return app, store


def _free_slots(worker: Any) -> int:
    """How many more tasks Celery lets this worker have, computed as `worker_disable_prefetch` does."""
    return int((worker.max_concurrency or worker.pool.num_processes) - len(state.reserved_requests))


@contextmanager
def _ends_in_a_sentence() -> Iterator[None]:
    """End the process after a ConfigError with one log line. Celery would print a traceback."""
    try:
        yield
    except ConfigError as error:
        log.critical("worker_not_configured", extra={"setting": error.param, "error": str(error)})
        sys.exit(1)


class _EngineProcess:
    """One worker process with its engine, as Celery's boot steps and its task use it."""

    def __init__(self, make: Callable[[], Worker], taker: KvTaker) -> None:
        """Args: make: makes the worker. Slow. Call it only in the process that uses the worker."""
        self._make, self._taker = make, taker
        self._worker: Worker | None = None
        self._is_stopping = False

    def start(self, node: str, free_slots: Callable[[], int]) -> None:
        """Start the engine, then begin to take jobs. A ConfigError ends the process."""
        with _ends_in_a_sentence():
            self._worker = worker = self._make()
            worker.start(node)
        startup.settle_heap(YOUNG_OBJECTS)
        elsewhere = worker.execute.state.confined.elsewhere
        self._taker.open(worker.kv_budget, worker.execute.takes, free_slots, elsewhere)

    def about(self) -> dict[str, object]:
        """What `celery inspect stats` and Flower show of the worker; empty while there is none."""
        return self._worker.about() if self._worker is not None else {}

    def run(self, job_id: str, enqueue_no: int) -> Outcome:
        """Run one attempt of a job. Returns: its outcome, once that is on disk."""
        if (worker := self._worker) is None:
            raise RuntimeError(f"{job_id} was taken while this process has no engine.")
        return worker.execute.run(parse_id(job_id), enqueue_no)

    def stop(self) -> None:
        """Stop the worker and its engine. Safe to call twice."""
        if self._worker is not None and not self._is_stopping:
            self._is_stopping = True
            self._worker.stop()
            self._worker = None


def _make_engine_app(name: str, settings: Settings, route: Route, pool: str, concurrency: int) -> Celery:
    spare = SPARE_SLOTS if route is Route.OVERFLOW else max(SPARE_SLOTS, int(SPARE_SHARE * concurrency))
    app, store = _make_app(name, settings, lane_queues(pool), concurrency + spare)
    redis = redis_client(settings)
    admission = Admission(redis, ExecuteMessage(app), reservation_ttl_s=settings.reservation_ttl_s)
    taker = KvTaker(redis, pool)
    own = {"taker": taker, "queue_order_strategy": lane_cycles(settings, pool)}
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, **own}
    make = partial(Worker, settings, route, store, admission, Hooks(taker.look, give_up, partial(give_up, os.EX_OK)))
    process = _EngineProcess(make, taker)

    class WorkerStep(bootsteps.StartStopStep):
        """Starts the engine before the consumer takes the first message. A failure here ends the process."""

        requires = ("celery.worker.components:Pool",)

        def start(self, worker: Any) -> None:
            process.start(worker.hostname, partial(_free_slots, worker))

        def info(self, _worker: Any) -> dict[str, object]:
            return process.about()

        def stop(self, worker: Any) -> None:
            process.stop()
            store.close()

        terminate = stop

    # Not shared: Celery would register a shared task with every app of the process, in an undefined order. `_newer`:
    # arguments that a newer release's message may have.
    @app.task(name=EXECUTE, shared=False, Request="workers.celery:TaskRequest", throws=(JobFailed,))
    def execute(job_id: str, enqueue_no: int, **_newer: object) -> None:
        show(process.run(job_id, enqueue_no))

    app.steps["worker"].add(WorkerStep)
    app.steps["consumer"].add(SendEvents)
    return app


def _make_webhook_app(settings: Settings) -> Celery:
    app, store = _make_app("webhooks", settings, (WEBHOOKS,), settings.webhooks.max_running)
    slots, message = DeliverySlots(settings.webhooks), DeliverMessage(app)
    metrics = DeliveryMetrics(store, slots)
    endpoint = Endpoint([metrics], settings.metrics_host, settings.metrics_port)
    taker = OutboxTaker(store, slots, lambda delivery: message.of(delivery.id, delivery.tries), metrics.count)
    session = partial(make_session, settings.webhooks)
    secrets = tuple(filter(None, (settings.budgets.webhook_secret, settings.budgets.webhook_secret_old)))
    use_case = Deliver(store, settings.webhooks, slots, session, taker.release, secrets, metrics.count)
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, "taker": taker}

    class OutboxStep(bootsteps.StartStopStep):
        """Pulls deliveries while the worker runs. At a stop, running deliveries have `drain_s` to end."""

        requires = ("celery.worker.components:Pool",)

        def start(self, worker: Any) -> None:
            # Earlier releases sent a message for each delivery. Nothing reads those messages any more.
            with suppress(RedisError), redis_client(settings) as redis:
                redis.delete(list_key(WEBHOOKS))
            with _ends_in_a_sentence():
                settings.check_budget_webhook()
                endpoint.start()
            taker.open(use_case.terms, partial(_free_slots, worker))

        def stop(self, worker: Any) -> None:
            taker.close()
            slots.drain(settings.drain_s)
            endpoint.stop()

        terminate = stop

    @app.task(name=DELIVER, shared=False)
    def deliver(delivery_id: str, tries: int) -> None:
        _deliver(use_case, UUID(hex=delivery_id), tries)

    app.steps["worker"].add(OutboxStep)
    return app


def _deliver(use_case: Deliver, delivery_id: UUID, tries: int) -> None:
    """Make one try. Celery shows a failed one as RETRY: a receiver that is down is no failed task of this system."""
    try:
        use_case.run(delivery_id, tries)
    except DeliveryFailed as error:
        raise Retry(exc=error) from None


def _make_gpu_app(settings: Settings) -> Celery:
    max_running = settings.pools[settings.pool].max_running
    return _make_engine_app("gpu", settings, Route.POOL, settings.pool, max_running)


def _make_overflow_app(settings: Settings) -> Celery:
    return _make_engine_app("overflow", settings, Route.OVERFLOW, OVERFLOW, settings.overflow.max_running)


_ROLES: Mapping[str, Callable[[Settings], Celery]] = MappingProxyType(
    {"gpu": _make_gpu_app, "overflow": _make_overflow_app, "webhooks": _make_webhook_app}
)


def __getattr__(name: str) -> Celery:
    """Return the Celery app of a role. The first access makes it. Other roles' apps are not made."""
    if name not in _ROLES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _app(name)


@cache
def _app(role: str) -> Celery:
    return _ROLES[role](startup.load())
