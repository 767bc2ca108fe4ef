"""Celery's remote control commands, sent by Flower and `celery control`: what Headrace does for each, or refuses.

Celery's own commands act on one worker's process only. A revoked message would be dropped, and then published again
until its job expires. A new pool size would not change the engine's slots. The setting `worker_enable_remote_control`
could only switch off all commands, and with them what Flower shows.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from celery.worker.control import Panel

from headrace.domain.ids import parse_id, show_id
from headrace.domain.states import JobState
from headrace.errors import HeadraceError, NotFound

#: Commands that cannot work here, each with what an operator does instead.
REFUSED = {
    "pool_grow": "The engine sets how many jobs run at once: set max_running of the pool and start the worker again.",
    "pool_shrink": "The engine sets how many jobs run at once: set max_running of the pool and start the worker again.",
    "pool_restart": "The engine runs in this process: stop the worker, and its supervisor starts it again.",
    "autoscale": "A worker's pool has the size of its engine: start more workers instead.",
    "rate_limit": "Rates are limited per app, before a job is queued: headrace apps limit APP --requests-per-minute N.",
    "time_limit": "A job's time is limited by its own deadline, not by its task.",
    "add_consumer": "A worker's queues are those of its pool: set HEADRACE_POOL and start another worker.",
    "cancel_consumer": "A worker's queues are those of its pool: stop the worker instead.",
    "revoke_by_stamped_headers": "Jobs have no stamped headers: revoke them by their ids.",
}
#: The answer of a worker that is asked to revoke: only the control worker cancels jobs.
NOT_HERE = "The control worker cancels jobs."
#: The operator's name in a command of `celery control`, which says none.
NO_NAME = "celery"


def leave_cancels_to_control() -> None:
    """For a worker that runs jobs: refuse the commands that cannot work, and leave cancels to the control worker."""
    _refuse()
    _revoke_by(lambda *_: NOT_HERE)


def cancel_here(cancel: Callable[[UUID, str], JobState]) -> None:
    """For a control worker: revoking or terminating a job's task cancels the job.

    Args: cancel: ends the job or asks its worker to, and returns its state. It is also given the operator's name, as
        far as the command says it. It may raise NotFound and other errors.
    """

    def revoke_one(task_id: str, operator: str) -> str:
        job_id = parse_id(task_id)
        return f"{show_id(job_id)} is {cancel(job_id, operator)}"

    _refuse()
    _revoke_by(revoke_one)


def _refuse() -> None:
    for command, why in REFUSED.items():
        Panel.register(name=command, type="control")(_refusal(why))


def _refusal(why: str) -> Callable[..., dict[str, str]]:
    def refuse(_state: Any, **_arguments: Any) -> dict[str, str]:
        """Refused."""
        return {"error": why}

    return refuse


def _revoke_by(one: Callable[[str, str], str]) -> None:
    def revoke(_state: Any, task_id: str | list[str], operator: str = NO_NAME, **_arguments: Any) -> dict[str, str]:
        """Cancel jobs by their ids."""
        ids = [task_id] if isinstance(task_id, str) else list(task_id)
        try:
            return {"ok": ", ".join([one(each, operator) for each in ids])}
        except NotFound as error:
            return {"error": str(error)}
        except HeadraceError as error:
            return {"error": f"{error} Try again."}

    for command in ("revoke", "terminate"):
        Panel.register(name=command, type="control", variadic="task_id")(revoke)
