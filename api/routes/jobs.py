"""`/v1/jobs`: submit, read, list, cancel and delete jobs, in Headrace's own format."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from flask import Blueprint, Response, request

from api.calls import Later, caller, parts, turn
from api.door.drafts import Accepted
from api.routes.operations import QUESTION, SCHEMA, SUBMIT, describes
from api.routes.replies import reply_of, with_job_headers
from api.routes.requests import accept, checked_body, listed, query, read, until_ended
from api.schemas.jobs import AcceptedBody, DeletedJob, JobBody, JobList, JobRequest, JobsQuery, WaitQuery
from api.turns import ClientGone
from headrace.broker import ending
from headrace.domain.ids import parse_id, show_id
from headrace.domain.jobs import Job
from headrace.errors import InvalidRequest, NotFound
from headrace.store import jobs
from headrace.store.jobs import texts

ROUTES = Blueprint("jobs", __name__)
#: How long a cancel waits for the job's worker to confirm it, in seconds. A worker sees the request within a second.
CONFIRMED_WITHIN_S = 2.0

JobReply = Callable[[Job], Response]
EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "prompt": {"prompt": QUESTION, "lane": "high", "max_tokens": 64, "metadata": {"order": "17"}},
    "conversation": {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}],
        "lane": "low",
        "max_wait": 3600,
        "overflow": "never",
        "temperature": 0.2,
    },
    "json": {
        "prompt": "What colour is the sky?",
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}},
        "end_user": "u-42",
    },
    "embeddings": {"input": [QUESTION, "What colour is the sky?"], "lane": "low"},
}


@ROUTES.post("/v1/jobs")
@describes(
    "jobs", "Submit a prompt", AcceptedBody, 202, body=JobRequest, makes="job", examples=EXAMPLES, refusals=SUBMIT
)
def submit() -> Response:
    """Replies with 202, and the job's place in its queue."""
    return accepted_reply(accept(checked_body(JobRequest).to_draft()))


@ROUTES.get("/v1/jobs")
@describes("jobs", "List your jobs, newest first", JobList, query=JobsQuery, refusals=(400,))
def list_newest() -> Response:
    """Returns a page of the caller's jobs."""
    asked = query(JobsQuery)
    try:
        after = parse_id(asked.after) if asked.after else None
    except NotFound as error:
        raise InvalidRequest("Invalid 'after': it is not the id of a job.", param="after") from error
    with parts().store.begin() as db:
        found = jobs.newest(db, caller().id, state=asked.status, after=after, limit=asked.limit + 1)
    return listed(lambda: JobList.of([JobBody.of(job) for job in found], asked.limit))


@ROUTES.get("/v1/jobs/<public_id>")
@describes("jobs", "Read a job, or wait for its end", JobBody, query=WaitQuery, refusals=(400, 404))
def retrieve(public_id: str) -> Response:
    """Returns the job, by any spelling of its id; with `?wait=` once it has ended."""
    return when_ended(parse_id(public_id), query(WaitQuery).wait, job_reply)


@ROUTES.delete("/v1/jobs/<public_id>")
@describes("jobs", "Erase an ended job's texts", DeletedJob, refusals=(404, 409))
def delete(public_id: str) -> Response:
    """Erase the job's texts. The job is not found any more, and its cost is kept."""
    job_id = parse_id(public_id)
    erase(job_id)
    reply = reply_of(DeletedJob(id=show_id(job_id)))
    reply.headers["x-job-id"] = show_id(job_id)
    return reply


@ROUTES.post("/v1/jobs/<public_id>/cancel")
@describes("jobs", "Cancel a job", JobBody, refusals=(404,))
def cancel(public_id: str) -> Response:
    """Returns the job as it stands after the request; safe to repeat."""
    return cancelled(parse_id(public_id), job_reply)


def accepted_reply(accepted: Accepted) -> Response:
    """Returns the reply to an accepted job."""
    return with_job_headers(reply_of(AcceptedBody.of(accepted), 202), accepted)


def job_reply(job: Job) -> Response:
    """Returns the job as it stands."""
    return with_job_headers(reply_of(JobBody.of(job)), job=job)


def when_ended(job_id: UUID, wait_s: float, job_reply: JobReply) -> Response:
    """Returns the caller's job, once it has ended, or as it stands when the wait is over.

    Raises: InvalidRequest: the wait is too long. NotFound. StoreUnavailable.
    """
    limit_s = parts().settings.wait_limit_s
    if wait_s > limit_s:
        raise InvalidRequest(f"Invalid 'wait': it may be at most {limit_s:g} seconds.", param="wait")
    if wait_s > 0:
        turn().kind = "wait"
    return _once_ended(job_id, wait_s, job_reply)


def cancelled(job_id: UUID, job_reply: JobReply) -> Response:
    """Cancel the caller's job; if it runs, wait a moment for its worker to stop it. Raises: NotFound."""
    job = ending.cancel(parts().store, parts().admission, caller().id, job_id)
    if job.state.is_terminal:
        return job_reply(job)
    return _once_ended(job_id, CONFIRMED_WITHIN_S, job_reply)


def _once_ended(job_id: UUID, wait_s: float, job_reply: JobReply) -> Response | Later:
    """Waits for the job's end. Without a free slot for the app, it replies with the job as it stands."""
    holds = wait_s > 0 and request.method != "HEAD"
    slot = parts().waits.take("wait", caller().id) if holds else None
    if slot is None:
        return job_reply(read(job_id))

    def end(found: Job | Exception) -> Response:
        if isinstance(found, ClientGone):
            return job_reply(read(job_id))
        if isinstance(found, Exception):
            raise found
        return job_reply(found)

    return until_ended(job_id, wait_s, slot, end)


def erase(job_id: UUID) -> None:
    """Erase the texts of the caller's ended job, its stream in Redis included. Raises: NotFound. JobNotEnded."""
    with parts().store.begin() as db:
        texts.erase(db, caller().id, job_id)
        # Before the commit: if Redis does not answer, nothing is deleted, and the caller gets the error.
        parts().streams.forget(job_id)
