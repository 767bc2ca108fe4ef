"""The operations on an existing job, whichever spelling of its id the caller uses: read, wait, cancel, delete."""

from collections.abc import Callable
from functools import partial
from uuid import UUID

from api.call import Call, ClientGone, Reply, Wait
from api.deps import WebDeps
from headrace.broker import ending
from headrace.domain.jobs import Job
from headrace.errors import InvalidRequest
from headrace.store.jobs import texts

#: How long a cancel waits for the job's worker to confirm it, in seconds. A worker sees the request within a second.
CONFIRMED_WITHIN_S = 2.0

JobReply = Callable[[Job], Reply]


def when_ended(web: WebDeps, call: Call, job_id: UUID, wait_s: float, job_reply: JobReply) -> Reply | Wait:
    """The caller's job, once it has ended, or as it stands when the wait is over.

    Raises: InvalidRequest: the wait is too long. NotFound. StoreUnavailable.
    """
    limit_s = web.settings.wait_limit_s
    if wait_s > limit_s:
        raise InvalidRequest(f"Invalid 'wait': it may be at most {limit_s:g} seconds.", param="wait")
    if wait_s > 0:
        call.kind = "wait"
    return _until_ended(web, call.app.id, job_id, wait_s, job_reply)


def cancelled(web: WebDeps, call: Call, job_id: UUID, job_reply: JobReply) -> Reply | Wait:
    """Cancel the caller's job; if it runs, wait a moment for its worker to stop it. Raises: NotFound."""
    job = ending.cancel(web.store, web.admission, call.app.id, job_id)
    if job.state.is_terminal:
        return job_reply(job)
    return _until_ended(web, call.app.id, job_id, CONFIRMED_WITHIN_S, job_reply)


def _until_ended(web: WebDeps, app_id: UUID, job_id: UUID, wait_s: float, job_reply: JobReply) -> Reply | Wait:
    """A wait for the job's end. Without a free slot for the app, the job as it stands: the client polls again."""
    read = partial(web.reader.read, app_id, job_id)
    slot = web.waits.take("wait", app_id) if wait_s > 0 else None
    if slot is None:
        return job_reply(read())

    def reply(found: Job | Exception) -> Reply:
        if isinstance(found, ClientGone):
            return job_reply(read())
        if isinstance(found, Exception):
            raise found
        return job_reply(found)

    return Wait(job_id, wait_s, slot, read, reply)


def erase(web: WebDeps, call: Call, job_id: UUID) -> None:
    """Erase the texts of the caller's ended job, its stream in Redis included. Raises: NotFound. JobNotEnded."""
    with web.store.begin() as db:
        texts.erase(db, call.app.id, job_id)
        # Before the commit: if Redis does not answer, nothing is deleted, and the caller gets the error.
        web.streams.forget(job_id)
