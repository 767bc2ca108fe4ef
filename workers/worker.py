"""A worker: starts one engine, keeps its lease, and stops it without losing a job."""

import gc
import logging
import os
import socket
import time
from collections.abc import Callable
from functools import partial

from prometheus_client.registry import Collector
from redis import Redis

from headrace import connections, store
from headrace.broker.pace import Pace
from headrace.broker.streams import Streams
from headrace.config import Settings
from headrace.domain.answers import AnswerLength
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.domain.queues import OVERFLOW, Route
from headrace.errors import ConfigError, StoreUnavailable
from headrace.policies.pricing import Tariff
from headrace.store import Store
from workers.engines import load
from workers.engines.base import EngineLimits
from workers.measuring.metrics import BudgetMetrics, Endpoint, WorkerMetrics
from workers.measuring.sampler import Sampler
from workers.paid.breaker import Breaker
from workers.paid.lockout import Lockout
from workers.paid.pacer import HELD_S, LONGEST_PAUSE_S, Pacer
from workers.paid.payer import Payer
from workers.running.bill import Bill
from workers.running.execute import Execute
from workers.running.lease import Lease
from workers.running.notices import Notices
from workers.running.publisher import Publisher
from workers.taking.kv_budget import KvBudget

log = logging.getLogger(__name__)

#: For how long a worker whose engine is up waits for a Postgres that is away, and between two tries, in seconds.
REGISTER_FOR_S = 60.0
AGAIN_AFTER_S = 1.0
#: New objects after which Python looks for cycles among them. After its default of 700 a busy worker looks seventy
#: times a second, and now and then through all that is loaded, for 70 ms in which no thread of it runs.
YOUNG_OBJECTS = 10_000


class Worker:
    """Holds the engine, the lease and the use case together from `start` to `stop`."""

    def __init__(
        self,
        settings: Settings,
        route: Route,
        opened: Store,
        notices: Notices,
        freed: Callable[[], None],
        give_up: Callable[[], object],
    ) -> None:
        pool = settings.pools[settings.pool]
        if route is Route.POOL and pool.is_paid:
            raise _no_engine(settings.pool)
        engine_name = "openai" if route is Route.OVERFLOW else pool.engine
        self._settings = settings
        self._route = route
        self._store = opened
        self._engine = load(engine_name, settings, pool)
        self._pool = OVERFLOW if route is Route.OVERFLOW else settings.pool
        tariff, redis = Tariff.of(settings), connections.redis(settings)
        make = partial(Breaker, probe_s=2 * settings.overflow.timeout_s)
        lockout = Lockout(tariff.all_api_models, tariff.api_models_in_use, make)
        payer = Payer(opened, tariff, settings.budgets, lockout, _pacer(tariff, redis, freed))
        self.execute = Execute(
            store=opened,
            engine=self._engine,
            bill=Bill(tariff, route, socket.gethostname()),
            worker_id=new_id(),
            max_attempts=settings.max_attempts,
            notices=notices,
            publisher=Publisher(Streams(redis)),
            payer=payer if route is Route.OVERFLOW else None,
            paid_pools=settings.paid_pools,
            kv_budget=KvBudget(self._engine, pool.kv_admission, pool.kv_high_share, freed),
        )
        self._lease = self._make_lease(give_up, lambda: not lockout.is_open)
        self._sampler, self._endpoint = self._measures()

    def _make_lease(self, give_up: Callable[[], object], serves: Callable[[], bool]) -> Lease:
        settings, execute = self._settings, self.execute
        return Lease(
            store=self._store,
            engine=self._engine,
            worker_id=execute.worker_id,
            running=execute.running,
            ready=execute.ready,
            lease_s=settings.lease_s,
            renew_every_s=settings.lease_renew_every_s,
            crashes=execute.crashes,
            give_up=give_up,
            serves=serves,
            max_run_s=settings.max_run_s(self._route),
        )

    def start(self) -> None:
        """Load the engine, publish its limits, and start the lease.

        Raises: EngineUnavailable, StoreUnavailable; ConfigError for a setting that cannot be followed.
        """
        self._endpoint.begin()
        log.info("engine_loading", extra={"engine": self._engine.name, "pid": os.getpid()})
        limits = self._engine.start()
        info = self._info(limits)
        self._register(info)
        self.execute.kv_budget.open(limits, self._past_answers())
        self._lease.begin()
        self._sampler.begin()
        self.execute.publisher.begin()
        gc.set_threshold(YOUNG_OBJECTS)
        self.execute.ready.set()
        facts = {"engine": info.engine, "kv_tokens": info.kv_tokens, "max_running": info.max_running}
        log.info("engine_ready", extra=facts)

    def _register(self, info: WorkerInfo) -> None:
        """Write this worker's row, through an outage of Postgres if need be: an engine may have loaded for minutes.

        Raises: StoreUnavailable.
        """
        give_up_at = time.monotonic() + REGISTER_FOR_S
        while True:
            try:
                with self._store.begin() as db:
                    store.workers.register(db, info, self._settings.lease_s)
                return
            except StoreUnavailable as error:
                if time.monotonic() > give_up_at:
                    raise
                log.warning("worker_not_registered", extra={"worker_id": str(info.id), "error": str(error)})
                time.sleep(AGAIN_AFTER_S)

    def _past_answers(self) -> list[AnswerLength]:
        """The pool's last answers; none where Postgres does not say, or no room is kept."""
        if self._route is Route.OVERFLOW:
            return []
        pool = self._settings.served_pool
        try:
            with self._store.begin() as db:
                return store.observations.answer_lengths(db, self._pool, [pool.model, *pool.adapters])
        except StoreUnavailable as error:
            log.warning("answers_not_read", extra={"error": str(error)})
            return []

    def _measures(self) -> tuple[Sampler, Endpoint]:
        """What reports on this worker, to Postgres and to Prometheus."""
        settings, engine, pool, execute = self._settings, self._engine, self._pool, self.execute
        sampler = Sampler(self._store, engine, execute.kv_budget, execute.worker_id, pool, settings.sample_every_s)
        collectors: list[Collector] = [WorkerMetrics(pool, engine, execute.kv_budget, execute.running, execute.ready)]
        if self._route is Route.OVERFLOW:
            collectors.append(BudgetMetrics(self._store, settings.budgets))
        return sampler, Endpoint(collectors, settings.metrics_host, settings.metrics_port)

    def _info(self, limits: EngineLimits) -> WorkerInfo:
        settings, host_id = self._settings, self.execute.bill.host_id
        return WorkerInfo(
            id=self.execute.worker_id,
            name=f"{self._pool}@{host_id}",
            host_id=host_id,
            pool=self._pool,
            engine=self._engine.name,
            model=settings.overflow.model if self._route is Route.OVERFLOW else settings.pools[settings.pool].model,
            max_running=limits.max_running,
            max_model_tokens=limits.max_model_tokens,
            kv_tokens=limits.kv_tokens,
            kv_block_tokens=limits.kv_block_tokens,
        )

    def stop(self) -> None:
        """Let running jobs finish for `drain_s`, hand the rest back, stop the engine, give up the lease."""
        self._lease.drain()
        if not self.execute.running.wait_until_idle(self._settings.drain_s):
            # A call to the paid API cannot be cut short, and what it costs must not be paid again elsewhere.
            if self._route is Route.POOL:
                self._lease.stop_all("draining")
            self.execute.running.wait_until_idle(self._settings.drain_s)
        self._sampler.end()
        # In this order: the lease would take an engine that was stopped for a dead one, and start it again.
        self._lease.end()
        self._engine.stop()
        self.execute.publisher.end()
        self._endpoint.end()
        log.info("worker_left", extra={"worker_id": str(self.execute.worker_id)})


def _pacer(tariff: Tariff, redis: Redis, freed: Callable[[], None]) -> Pacer:
    is_one_model = len(tariff.api_models_in_use) == 1
    return Pacer(Pace(redis), reopened=freed, longest_closed_s=LONGEST_PAUSE_S if is_one_model else HELD_S)


def _no_engine(pool: str) -> ConfigError:
    message = (
        f"The paid API alone answers pool '{pool}' (engine 'openai'), by the overflow worker: "
        "set HEADRACE_POOL to a pool with an engine of its own, or start no GPU worker."
    )
    return ConfigError(message, param="pool")
