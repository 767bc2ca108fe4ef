"""What an attempt came to, and how Celery's events, and so Flower, show it. The states of jobs are Postgres's own.

Celery learns a failure, a retry and a revocation from what a task raises. What is raised here names an error code and
nothing else: an error's message may quote a prompt.
"""

from typing import Any, NamedTuple

from billiard.einfo import ExceptionWithTraceback
from celery.exceptions import Ignore, Retry
from celery.worker.request import Request

from headrace.domain.states import JobState


class Outcome(NamedTuple):
    """Where a job is after an attempt, and the error code that brought it there, if any did."""

    state: JobState
    error_code: str | None = None


class JobFailed(Exception):
    """The job has failed. Shown as FAILURE."""


class HandedBack(Exception):
    """The job waits for another attempt. Shown as RETRY."""


class JobRevoked(Ignore):
    """The job was cancelled. Shown as REVOKED."""


class NotHere(Ignore):
    """Another process answers for the job, and shows what becomes of it."""


def show(outcome: Outcome | None) -> None:
    """Let Celery know what an attempt came to, by raising it; a success raises nothing."""
    if outcome is None:
        raise NotHere
    match outcome.state:
        case JobState.SUCCEEDED:
            return
        case JobState.FAILED:
            raise JobFailed(outcome.error_code or "failed")
        case JobState.CANCELLED | JobState.EXPIRED:
            raise JobRevoked(str(outcome.state))
        case _:
            raise Retry(exc=HandedBack(outcome.error_code or "handed_back"))


class TaskRequest(Request):
    """A task's request that sends the event of a cancelled job: Celery itself sends none of an ignored task."""

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Called when the task has raised something."""
        shown = super().on_failure(exc_info, *args, **kwargs)
        raised = exc_info.exception
        if isinstance(raised, ExceptionWithTraceback):
            raised = raised.exc
        if isinstance(raised, JobRevoked):
            self.send_event("task-revoked", terminated=True, signum=None, expired=False)
        return shown
