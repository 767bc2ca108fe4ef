"""The operations on an existing job, whichever spelling of its id the caller uses: poll, cancel, delete."""

from uuid import UUID

from flask import g, request

from api.deps import deps
from api.reading.peers import peer_of
from api.routes.submission import read_job
from headrace.broker import ending
from headrace.domain.apps import App
from headrace.domain.jobs import Job
from headrace.errors import InvalidRequest
from headrace.store.jobs import texts

#: How long a cancel waits for the job's worker to confirm it, in seconds. A worker sees the request within a second.
CONFIRMED_WITHIN_S = 2.0


def when_ended(app: App, job_id: UUID, wait_s: float) -> Job:
    """The caller's job, once it has ended, or as it stands when the wait is over.

    Raises: InvalidRequest: the wait is too long. NotFound. StoreUnavailable.
    """
    limit_s = deps().settings.wait_limit_s
    if wait_s > limit_s:
        raise InvalidRequest(f"Invalid 'wait': it may be at most {limit_s:g} seconds.", param="wait")
    g.waits = wait_s > 0
    return deps().waits.until_ended(app.id, job_id, lambda: read_job(app, job_id), wait_s, peer_of(request.environ))


def cancelled(app: App, job_id: UUID) -> Job:
    """Cancel the caller's job; if it runs, wait a moment for its worker to stop it. Raises: NotFound."""
    job = ending.cancel(deps().store, deps().admission, app.id, job_id)
    if job.state.is_terminal:
        return job
    return deps().waits.until_ended(app.id, job_id, lambda: read_job(app, job_id), CONFIRMED_WITHIN_S)


def erase(app: App, job_id: UUID) -> None:
    """Erase the texts of the caller's ended job, its stream in Redis included. Raises: NotFound. JobNotEnded."""
    with deps().store.begin() as db:
        texts.erase(db, app.id, job_id)
        # Before the commit: if Redis does not answer, nothing is deleted, and the caller gets the error.
        deps().streams.forget(job_id)
