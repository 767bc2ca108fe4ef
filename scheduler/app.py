"""Composition root of the control processes: worker and beat. Only wiring, and the two tasks that beat names.

celery -A scheduler.app worker -Q control
celery -A scheduler.app beat
"""

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

from celery import Celery, bootsteps
from celery.signals import beat_init, setup_logging
from celery.worker.consumer import Events

from headrace import connections, startup
from headrace.broker.admission import Admission
from headrace.broker.messages import ExecuteMessage, make_celery
from headrace.broker.rates import Pace
from headrace.broker.remote_control import cancel_here
from headrace.broker.watchdog import watch
from headrace.config import Settings
from headrace.connections.redis import redis_client
from headrace.domain.fleet import ProcessKind
from headrace.domain.queues import AUTOSCALE, CONTROL, OBSERVE
from headrace.errors import LockHeld, Unavailable
from headrace.heartbeat import Heartbeat, beat_in_workers
from headrace.metrics import Endpoint
from headrace.store import Store, deliveries, escalations, jobs
from headrace.store.bad_rows import BadRows
from headrace.store.cache import exact_cache, semantic_cache, semantic_matches
from headrace.store.fleet import observations
from headrace.store.jobs import insertion, shadows, texts
from headrace.store.money import budgets, cost_hours, host_hours
from headrace.sweeper import Sweep, Sweeper
from scheduler import actuators, sweep
from scheduler.autoscale import autoscale
from scheduler.deps import ControlDeps
from scheduler.fleet.move_hosts import HostMover, PoolRetirer, note_hosts
from scheduler.fleet.plan import Timing
from scheduler.fleet.watch_scaling import watch_scaling
from scheduler.hooks import of_plugins
from scheduler.learn import compare_shadows, forget_entries, judge_matches, start_shadows
from scheduler.measuring import QueueMetrics, StoreMetrics
from scheduler.money import close_days, close_hours, price_tokens, watch_budgets
from scheduler.observe import observe
from scheduler.rescue import Patience, rescue
from scheduler.show_ends import EndsListener
from scheduler.spill import spill
from scheduler.sweep import AnalystsEnder, detach_months, give_kept, make_months

log = logging.getLogger(__name__)

#: The expiry sweep runs at least this often, so that an expiry shows within a second of its time.
EXPIRE_EVERY_S = 0.5
WATCH_BUDGETS_EVERY_S = 2.0
#: Its queries read up to an hour of samples.
WATCH_SCALING_EVERY_S = 5.0
RECONCILE_EVERY_S = 10.0
#: One batch each time removes what 1,000 jobs a second leave behind. After a full batch the next follows at once.
FORGET_EVERY_S = 5.0
FORGET_SAMPLES_EVERY_S = 60.0
CLOSE_HOURS_EVERY_S = 60.0
END_ANALYSTS_EVERY_S = 5.0
#: No job waits for a shadow.
SHADOWS_EVERY_S = 2.0
CLOSE_DAYS_EVERY_S = 300.0
PRICE_TOKENS_EVERY_S = 60.0
#: Months are made long before they are needed.
MONTHS_EVERY_S = 3600.0


def make_deps(celery: Celery, settings: Settings) -> ControlDeps:
    """The servers, connected on first use."""
    redis = redis_client(settings)
    admission = Admission(redis, ExecuteMessage(celery), reservation_ttl_s=settings.reservation_ttl_s)
    store = Store(connections.postgres(settings, pool_size=connections.OF_A_WORKER))
    return ControlDeps(settings, store, admission, Pace(redis))


def make_sweeper(deps: ControlDeps) -> Sweeper:
    """All sweeps, with their intervals."""
    added = (sweep for part in of_plugins() for sweep in part.sweeps(deps))
    return Sweeper([*job_sweeps(deps), *upkeep_sweeps(deps), *host_sweeps(deps), *added], deps.sweeps.note)


def job_sweeps(deps: ControlDeps) -> list[Sweep]:
    """The sweeps that move jobs on: jobs wait for them."""
    every_s, patience = deps.settings.sweep_every_s, Patience(deps.settings.lease_s)
    return [
        Sweep("expire", min(every_s, EXPIRE_EVERY_S), partial(sweep.expire, deps, BadRows("expire")), jobs.SWEEP_ROWS),
        Sweep("rescue", every_s, partial(rescue, deps, patience, BadRows("rescue")), jobs.RESCUE_ROWS),
        Sweep("spill", every_s, partial(spill, deps, BadRows("spill"))),
        Sweep("give_turn", every_s, partial(sweep.give_turn, deps)),
        Sweep("give_kept", every_s, partial(give_kept, deps, BadRows("give_kept")), escalations.STAND_ROWS),
        Sweep("start_shadows", SHADOWS_EVERY_S, partial(start_shadows, deps)),
        Sweep("compare_shadows", SHADOWS_EVERY_S, partial(compare_shadows, deps), shadows.SWEEP_ROWS),
        Sweep(
            "settle_followers",
            every_s,
            partial(sweep.settle_followers, deps, BadRows("settle_followers")),
            exact_cache.SETTLE_ROWS,
        ),
        Sweep("publish_due", every_s, partial(sweep.publish_due, deps)),
    ]


def upkeep_sweeps(deps: ControlDeps) -> list[Sweep]:
    """The sweeps that watch budgets, close the books, free what is stuck and forget what is old."""
    every_s = deps.settings.sweep_every_s
    return [
        Sweep("watch_budgets", WATCH_BUDGETS_EVERY_S, partial(watch_budgets, deps)),
        Sweep("watch_scaling", WATCH_SCALING_EVERY_S, partial(watch_scaling, deps)),
        Sweep("settle_calls", every_s, partial(sweep.settle_calls, deps), budgets.LATE_ROWS),
        Sweep("close_hours", CLOSE_HOURS_EVERY_S, partial(close_hours, deps), host_hours.MOST_HOURS),
        Sweep("close_days", CLOSE_DAYS_EVERY_S, partial(close_days, deps), cost_hours.MOST_DAYS),
        Sweep("price_tokens", PRICE_TOKENS_EVERY_S, partial(price_tokens, deps)),
        Sweep("reconcile_admission", RECONCILE_EVERY_S, partial(sweep.reconcile_admission, deps)),
        Sweep("forget_keys", FORGET_EVERY_S, partial(sweep.forget_keys, deps), insertion.FORGET_ROWS),
        Sweep(
            "roll_up_samples",
            FORGET_SAMPLES_EVERY_S,
            partial(sweep.roll_up_samples, deps),
            observations.FORGET_ROWS,
        ),
        Sweep(
            "forget_samples",
            FORGET_SAMPLES_EVERY_S,
            partial(sweep.forget_samples, deps),
            observations.FORGET_ROWS,
        ),
        Sweep("forget_texts", FORGET_EVERY_S, partial(sweep.forget_texts, deps), texts.FORGET_JOBS),
        Sweep("forget_deliveries", FORGET_EVERY_S, partial(sweep.forget_deliveries, deps), deliveries.FORGET_ROWS),
        Sweep("judge_matches", every_s, partial(judge_matches, deps), semantic_matches.JUDGE_ROWS),
        Sweep("forget_entries", FORGET_SAMPLES_EVERY_S, partial(forget_entries, deps), semantic_cache.FORGET_ROWS),
        Sweep("end_analysts", END_ANALYSTS_EVERY_S, AnalystsEnder(deps)),
        Sweep("make_months", MONTHS_EVERY_S, partial(make_months, deps)),
        Sweep("detach_months", MONTHS_EVERY_S, partial(detach_months, deps)),
    ]


def host_sweeps(deps: ControlDeps) -> list[Sweep]:
    """The sweeps that keep the leases of hosts: one for each pool, and one for all pools that were removed.

    In the mode `active` they also move the hosts.

    Raises: ConfigError.
    """
    settings = deps.settings
    if settings.scaling.mode != "active":
        noting = [
            Sweep(f"note_hosts.{pool}", settings.sweep_every_s, partial(note_hosts, deps, pool))
            for pool in settings.own_pools
        ]
        return [*noting, Sweep("retire_pools", settings.sweep_every_s, PoolRetirer(deps))]
    actuator, fail_at = actuators.load(settings), startup.failpoint(settings.failpoint)
    timing = Timing.of(actuator)

    def make_mover(pool: str) -> HostMover:
        return HostMover(deps, actuator, pool, timing, fail_at)

    moving = [Sweep(f"move_hosts.{pool}", settings.sweep_every_s, make_mover(pool)) for pool in settings.own_pools]
    return [*moving, Sweep("retire_pools", settings.sweep_every_s, PoolRetirer(deps, make_mover))]


def add_steps(celery: Celery, deps: ControlDeps) -> None:
    """Make workers of this app run the sweeps, and show Flower the jobs that moved without a worker."""

    class SweepStep(bootsteps.StartStopStep):
        """Sweeps in the control worker's process: started before its consumer, which waits for the broker."""

        def create(self, worker: Any) -> Sweeper:
            """Called once, when the worker is put together."""
            with startup.explained():
                return make_sweeper(deps)

    class MetricsStep(bootsteps.StartStopStep):
        """Serves the metrics of the control worker's process."""

        def create(self, worker: Any) -> Endpoint:
            """Called once, when the worker is put together."""
            # While a table is locked, the sweeps hold all connections of their pool.
            looking = replace(deps, store=Store(connections.postgres(deps.settings, pool_size=1)))
            collectors = [deps.tallies, deps.sweeps, QueueMetrics(looking), StoreMetrics(looking)]
            return Endpoint(collectors, deps.settings.metrics_host, deps.settings.metrics_port)

        def start(self, worker: Any) -> None:
            """Called once, before anything is consumed."""
            with startup.explained():
                self.obj.start()

    class ShowEndsStep(bootsteps.StartStopStep):
        """Shows such jobs while the worker is connected, over its own Redis connection."""

        requires = (Events,)

        def create(self, consumer: Any) -> EndsListener:
            """Called once, before the first connection."""
            return EndsListener(deps.store, redis_client(deps.settings))

        def start(self, consumer: Any) -> None:
            """Called for each connection, once it has an event dispatcher."""
            self.obj.start(consumer.event_dispatcher)

    celery.steps["worker"].update({SweepStep, MetricsStep})
    celery.steps["consumer"].add(ShowEndsStep)


def add_tasks(celery: Celery, deps: ControlDeps) -> None:
    """Let workers of `celery` run the tasks that beat names."""

    # A beat of a newer release may send arguments that this release does not know.
    def run_observe(**_newer: object) -> None:
        _tick(OBSERVE, lambda: observe(deps))

    def run_autoscale(**_newer: object) -> None:
        _tick(AUTOSCALE, lambda: autoscale(deps))

    # Their events would fill Flower's pages, which are for jobs.
    celery.task(run_observe, name=OBSERVE, shared=False, send_events=False)
    celery.task(run_autoscale, name=AUTOSCALE, shared=False, send_events=False)


def _tick(name: str, work: Callable[[], object]) -> None:
    """Do the work, unless another process does. An outage does not fail the task: the next tick tries again."""
    try:
        work()
    except LockHeld:
        return
    except Unavailable as error:
        log.warning("tick_skipped", extra={"task": name, "error": str(error)})


def _every(task: str, seconds: float) -> dict[str, Any]:
    """An entry of the beat schedule. A tick that no worker took before the next one is dropped: it is of no use."""
    return {"task": task, "schedule": seconds, "options": {"queue": CONTROL, "expires": seconds}}


def make_app(settings: Settings) -> Celery:
    """The control processes' Celery app, without its tasks and its workers' steps."""
    celery = make_celery("headrace.scheduler", settings)
    celery.conf.update(
        beat_schedule={
            "observe": _every(OBSERVE, settings.observe_every_s),
            "autoscale": _every(AUTOSCALE, settings.autoscale_every_s),
        },
        # The schedule above is all that beat needs, so it keeps no state file. Results are not stored, so none expire.
        beat_scheduler="celery.beat:Scheduler",
        result_expires=None,
        # Two short tasks: one at a time, in the worker's own thread.
        worker_pool="solo",
        worker_concurrency=1,
    )
    # A worker without `-Q` would take from every queue.
    celery.amqp.queues.select([CONTROL])
    setup_logging.connect(startup.log_as_json)
    watch(celery, settings)
    # The control worker must also start while Redis is down: it sweeps Postgres.
    is_worker = "worker" in sys.argv
    startup.check_first(celery, settings, goes_on=is_worker, uses_postgres=is_worker)
    return celery


@cache
def _app() -> Celery:
    """The control processes' Celery app, with its tasks, steps and remote control commands."""
    settings = startup.load()
    celery = make_app(settings)
    deps = make_deps(celery, settings)
    beat_in_workers(celery, ProcessKind.CONTROL, settings, deps.sweeps.problems)
    beat_init.connect(lambda **_: Heartbeat(ProcessKind.BEAT, settings).start(), weak=False)
    add_steps(celery, deps)
    add_tasks(celery, deps)
    cancel_here(partial(sweep.cancel, deps))
    return celery


def __getattr__(name: str) -> Celery:
    """Make `app` when `celery --app scheduler.app` looks for it, so that an import alone makes nothing."""
    if name == "app":
        return _app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
