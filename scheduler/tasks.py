"""The control queue's tasks: only the Celery side of `observe` and `autoscale`."""

import logging
from collections.abc import Callable

from celery import Celery

from headrace.domain.queues import AUTOSCALE, OBSERVE
from headrace.errors import LockHeld, Unavailable
from scheduler.autoscale import autoscale
from scheduler.deps import ControlDeps
from scheduler.observe import observe

log = logging.getLogger(__name__)


def register(celery: Celery, deps: ControlDeps) -> None:
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
