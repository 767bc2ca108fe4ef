"""The outcome of an attempt, and how Celery's events and Flower show it. Postgres holds the job's real state.

Celery reads a failure, a retry or a revocation from the exception that a task raises. These exceptions carry only an
error code, because an error message may quote a prompt.
"""

from typing import Any, NamedTuple

from billiard.einfo import ExceptionWithTraceback
from celery.exceptions import Ignore, Retry
from celery.worker.request import Request

from headrace.domain.states import JobState


class Outcome(NamedTuple):
    """The job's state after an attempt, and the error code that led to it, if any."""

    state: JobState
    error_code: str | None = None


class JobFailed(Exception):
    """The job has failed. Shown as FAILURE."""


class HandedBack(Exception):
    """The job waits for another attempt. Shown as RETRY."""


class JobRevoked(Ignore):
    """The job was cancelled. Shown as REVOKED."""


class NotHere(Ignore):
    """Another process holds the job and shows its outcome."""


def show(outcome: Outcome | None) -> None:
    """Report an attempt's outcome to Celery by raising its exception. A success raises nothing."""
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
    """Sends the `task-revoked` event of a cancelled job. Celery sends no event for a task that raises Ignore."""

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Celery calls this when the task has raised an exception."""
        shown = super().on_failure(exc_info, *args, **kwargs)
        raised = exc_info.exception
        if isinstance(raised, ExceptionWithTraceback):
            raised = raised.exc
        if isinstance(raised, JobRevoked):
            self.send_event("task-revoked", terminated=True, signum=None, expired=False)
        return shown
