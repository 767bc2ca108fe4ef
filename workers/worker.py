"""A worker: starts one engine, keeps its lease, and stops it without losing a job."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from redis import Redis
from sqlalchemy import Connection

from headrace.broker.admission import Admission
from headrace.broker.rates import Pace
from headrace.broker.reuse import Lookups
from headrace.broker.streams import Streams
from headrace.config import Settings
from headrace.connections.model_files import tokenizer_for
from headrace.connections.redis import redis_client
from headrace.domain.fleet import WorkerInfo, WorkerReport
from headrace.domain.queues import OVERFLOW, Route
from headrace.errors import ConfigError, StoreUnavailable
from headrace.installed import parts
from headrace.metrics import Endpoint
from headrace.policies.answers import AnswerLength
from headrace.policies.pricing import Tariff
from headrace.policies.retries import RetryRules
from headrace.policies.tokens import EstimatingTokenizer, InputTokenizer, PromptTokenizer
from headrace.store import Store
from headrace.store.fleet import observations, workers
from headrace.store.jobs import queued
from headrace.store.money import tariffs
from headrace.sweeper import SweepCounts, Sweeper
from workers.compressing import Compressor
from workers.confining import Confining
from workers.engines import load
from workers.engines.base import EngineLimits
from workers.hooks import WorkerCore, WorkerPart
from workers.matching import LookupHold, matcher_of
from workers.measuring import Sampler, WorkerMetrics
from workers.paid import HELD_S, LONGEST_PAUSE_S, Breaker, Lockout, Pacer, Payer
from workers.running.bill import Bill
from workers.running.cascading import Cascading
from workers.running.execute import Execute
from workers.running.lease import Lease, LeaseTimes
from workers.running.publisher import Notices, Publisher
from workers.running.worker_state import WorkerState
from workers.taking.kv_budget import KvBudget
from workers.unattended import Unattended

log = logging.getLogger(__name__)

#: Seconds for which a worker with a running engine retries its registration during a Postgres outage, and seconds
#: between two tries.
REGISTER_FOR_S = 60.0
AGAIN_AFTER_S = 1.0
#: Seconds in which the jobs of an engine that has stopped are handed back.
STOPPED_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Hooks:
    """Callbacks into the worker's process. The worker calls them from any thread.

    Attributes:
        freed: a job has left the engine, or a draining host was called back, so another job may be taken.
        give_up: the engine has died too often. Ends the process with an error.
        leave: the host is to end. Ends the process without an error.
    """

    freed: Callable[[], None]
    give_up: Callable[[], object]
    leave: Callable[[], object] = lambda: None


class Worker:
    """Holds the engine, the lease and the use case together from `start` to `stop`.

    Attributes:
        kv_budget: the room in the engine's KV cache. The caller reserves a job's room before it calls `execute`.
        sampler: reports to Postgres what the engine does, and reads the prices.
    """

    def __init__(self, settings: Settings, route: Route, store: Store, admission: Admission, hooks: Hooks) -> None:
        """Make the engine, and start nothing. Raises: ConfigError."""
        pool = settings.pools[settings.pool]
        if route is Route.POOL and pool.is_paid:
            raise _no_engine(settings.pool)
        self._settings, self._route, self._store = settings, route, store
        self._pool = OVERFLOW if route is Route.OVERFLOW else settings.pool
        self._engine = load("openai" if route is Route.OVERFLOW else pool.engine, settings, pool)
        self._state = WorkerState()
        self.kv_budget = KvBudget(self._engine, pool.kv_admission, pool.kv_high_share, hooks.freed)
        tariff, redis = Tariff.of(settings), redis_client(settings)
        self._publisher = Publisher(Streams(redis))
        lockout = _lockout(tariff, settings)
        payer = Payer(store, tariff.api_model, settings.budgets, lockout, _pacer(tariff, redis, hooks.freed))
        notices, bill = Notices(admission, partial(queued.over, store)), Bill(tariff, route, settings.host_id)
        # Its first call loads the tokenizer: most workers never need a second one.
        tokenizer = cache(self._tokenizer)
        core = WorkerCore(
            settings=settings,
            route=route,
            pool=self._pool,
            store=store,
            redis=redis,
            admission=admission,
            engine=self._engine,
            kv_budget=self.kv_budget,
            notices=notices,
            bill=bill,
            tokenizer=tokenizer,
        )
        self._plugins: tuple[WorkerPart, ...] = tuple(module.make(core) for module in parts("worker"))
        self.execute = Execute(
            state=self._state,
            engine=self._engine,
            kv_budget=self.kv_budget,
            publisher=self._publisher,
            store=store,
            notices=notices,
            confining=Confining(store, settings.confine_s),
            bill=bill,
            rules=RetryRules(settings.max_attempts, settings.paid_pools),
            shares_prefixes=pool.shared_prefix_cache,
            payer=payer if route is Route.OVERFLOW else None,
            lookup_hold=self._lookup_hold(redis),
            compressor=Compressor(tokenizer, self.kv_budget.shrunk),
            cascading=Cascading(settings.rules, settings.pools),
            before_engine=tuple(part.before_engine for part in self._plugins if part.before_engine is not None),
        )
        self._matcher = matcher_of(settings, store, self._engine, Lookups(redis, self._pool), admission)
        self._lease = self._lease_of(hooks, lockout)
        counts = SweepCounts()
        self._sweeper = Sweeper([sweep for part in self._plugins for sweep in part.sweeps], counts.note)
        self._unattended = Unattended(settings, store, self._pool, hooks.leave)
        self.sampler, self._endpoint = self._measures(counts)

    def _lease_of(self, hooks: Hooks, lockout: Lockout) -> Lease:
        settings = self._settings
        return Lease(
            state=self._state,
            store=self._store,
            engine=self._engine,
            times=LeaseTimes(settings.lease_s, settings.lease_renew_every_s, settings.max_run_s(self._route)),
            give_up=hooks.give_up,
            # GPU workers stay ready while the paid API is locked out.
            serves=lambda: self._route is Route.POOL or not lockout.is_open,
            called_back=hooks.freed,
        )

    def _tokenizer(self) -> PromptTokenizer:
        """Counts prompts as the engine does; an estimate for the paid API and for an engine of embeddings."""
        if self._route is Route.OVERFLOW or self._settings.served_pool.is_embedding:
            return EstimatingTokenizer()
        tokenizer = tokenizer_for(self._settings.served_pool)
        return EstimatingTokenizer() if isinstance(tokenizer, InputTokenizer) else tokenizer

    def _lookup_hold(self, redis: Redis) -> LookupHold:
        """What keeps a new job from this worker's engine until it is looked up."""
        if self._route is Route.OVERFLOW:
            names = {pool.semantic_cache.pool for pool in self._settings.pools.values()}
            return LookupHold([Lookups(redis, name) for name in names if name is not None])
        cache = self._settings.served_pool.semantic_cache
        if cache.pool is None or cache.shadow:
            return LookupHold()
        return LookupHold([Lookups(redis, cache.pool)], cache.hold_s)

    def _measures(self, sweeps: SweepCounts) -> tuple[Sampler, Endpoint]:
        """Make the sampler, which reports to Postgres, and the endpoint, which reports to Prometheus."""
        settings = self._settings
        sampler = Sampler(
            store=self._store,
            engine=self._engine,
            kv_budget=self.kv_budget,
            worker_id=self._state.id,
            pool=self._pool,
            every_s=settings.sample_every_s,
            also=self._read_prices,
        )
        metrics = WorkerMetrics(
            self._pool, self._engine, self.kv_budget, self._state, lambda: self._unattended.unseen_s
        )
        return sampler, Endpoint([metrics, sweeps], settings.metrics_host, settings.metrics_port)

    def start(self, node: str) -> None:
        """Load the engine, publish its limits, and start the lease.

        Args: node: the process's name in Celery and Flower. No other process has it.
        Raises: EngineUnavailable, StoreUnavailable; ConfigError for a setting that cannot be followed.
        """
        self._endpoint.start()
        facts = {"engine": self._engine.name, "pid": os.getpid(), "host_id": self._settings.host_id}
        log.info("engine_loading", extra=facts)
        limits = self._engine.start()
        info = self._info(node, limits)
        self._register(info)
        self.kv_budget.open(limits, self._past_answers())
        self._lease.begin()
        self.sampler.begin()
        self._publisher.begin()
        if self._route is Route.POOL:
            self._unattended.begin()
        if self._matcher is not None:
            self._matcher.begin()
        for part in self._plugins:
            if part.begin is not None:
                part.begin()
        self._state.ready.set()
        self._sweeper.start()
        facts = {"engine": info.engine, "kv_tokens": info.kv_tokens, "max_running": info.max_running}
        log.info("engine_ready", extra=facts)

    def _register(self, info: WorkerInfo) -> None:
        """Write this worker's row. Retries through a Postgres outage, because the engine may have loaded for minutes.

        Raises: StoreUnavailable.
        """
        give_up_at = time.monotonic() + REGISTER_FOR_S
        while True:
            try:
                with self._store.begin() as db:
                    workers.register(db, info, self._settings.lease_s)
                    renewal = workers.renew(db, info.id, self._settings.lease_s, WorkerReport(0, ready=True))
                    self._read_prices(db)
                self._lease.follow_host(drains=renewal.host_drains)
                self._state.confined.set(renewal.confined)
                return
            except StoreUnavailable as error:
                if time.monotonic() > give_up_at:
                    raise
                log.warning("worker_not_registered", extra={"worker_id": str(info.id), "error": str(error)})
                time.sleep(AGAIN_AFTER_S)

    def _read_prices(self, db: Connection) -> None:
        """Price the next attempts as of now."""
        self.execute.bill.tariff = tariffs.in_force(db, self._settings)

    def _past_answers(self) -> list[AnswerLength]:
        """The lengths of the pool's last answers. Empty for the paid API, which needs no room, and without Postgres."""
        if self._route is Route.OVERFLOW:
            return []
        pool = self._settings.served_pool
        try:
            with self._store.begin() as db:
                return observations.answer_lengths(db, self._pool, [pool.model, *pool.adapters])
        except StoreUnavailable as error:
            log.warning("answers_not_read", extra={"error": str(error)})
            return []

    def _info(self, node: str, limits: EngineLimits) -> WorkerInfo:
        settings = self._settings
        return WorkerInfo(
            id=self._state.id,
            name=node,
            host_id=settings.host_id,
            pool=self._pool,
            engine=self._engine.name,
            model=settings.overflow.model if self._route is Route.OVERFLOW else settings.pools[settings.pool].model,
            max_running=limits.max_running,
            max_model_tokens=limits.max_model_tokens,
            kv_tokens=limits.kv_tokens,
            kv_block_tokens=limits.kv_block_tokens,
        )

    def about(self) -> dict[str, object]:
        """What Flower shows of it on the worker's page, under "Other"."""
        return {"host_id": self._settings.host_id, "draining": self._state.host_drains.is_set()}

    def stop(self) -> None:
        """Let running jobs finish for `drain_s`, hand the rest back, stop the engine, give up the lease."""
        self._unattended.end()
        self._lease.drain()
        if not self._state.attempts.wait_until_idle(self._settings.drain_s):
            # A call to the paid API cannot be aborted, and another worker must not pay for the same job again.
            if self._route is Route.POOL:
                self._lease.stop_all("draining")
            self._state.attempts.wait_until_idle(self._settings.drain_s)
        self._sweeper.stop()
        for part in self._plugins:
            if part.end is not None:
                part.end()
        self.sampler.end()
        if self._matcher is not None:
            self._matcher.end()
        # In this order: the lease would mistake a stopped engine for a dead one, and restart it.
        self._lease.end()
        self._engine.stop()
        # The engine has let go of what ran: those jobs are handed back.
        self._state.attempts.wait_until_idle(STOPPED_WITHIN_S)
        self.execute.close()
        self.execute.notices.close()
        self._publisher.end()
        self._endpoint.stop()
        log.info("worker_left", extra={"worker_id": str(self._state.id)})


def _lockout(tariff: Tariff, settings: Settings) -> Lockout:
    make = partial(Breaker, probe_s=2 * settings.overflow.timeout_s)
    return Lockout(tariff.all_api_models, tariff.api_models_in_use, make)


def _pacer(tariff: Tariff, redis: Redis, freed: Callable[[], None]) -> Pacer:
    is_one_model = len(tariff.api_models_in_use) == 1
    return Pacer(Pace(redis), reopened=freed, longest_closed_s=LONGEST_PAUSE_S if is_one_model else HELD_S)


def _no_engine(pool: str) -> ConfigError:
    message = (
        f"The paid API alone answers pool '{pool}' (engine 'openai'), by the overflow worker: "
        "set HEADRACE_POOL to a pool with an engine of its own, or start no GPU worker."
    )
    return ConfigError(message, param="pool")
