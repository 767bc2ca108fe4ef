"""`/v1/jobs`: submit, read, list, cancel and delete jobs, in Headrace's own format."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from uuid import UUID

from api.bodies import SMALL_BYTES
from api.call import QUESTION, SCHEMA, SUBMIT, Asked, Call, ClientGone, Operation, Reply, Wait
from api.deps import WebDeps
from api.door.drafts import Accepted, Draft
from api.handlers.replies import problem, reply_of, with_job_headers
from api.handlers.submitting import accept, checked_body, idempotency_key, listed, query
from api.schemas.body import parse_object, validated
from api.schemas.jobs import AcceptedBody, DeletedJob, JobBody, JobList, JobRequest, JobsQuery, WaitQuery
from headrace.broker import ending
from headrace.config.rules import AUTO
from headrace.domain.ids import parse_id, show_id
from headrace.domain.jobs import Job
from headrace.errors import InvalidRequest, NotFound
from headrace.store import jobs
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


def submit(web: WebDeps, call: Call) -> Reply:
    """202, and the job's place in its queue."""
    return accepted_reply(accept(web, call, checked_body(JobRequest, web, call).to_draft()))


def submit_soon(web: WebDeps, call: Call) -> Reply | Asked | None:
    """A plain job, which may be refused by its body before that is examined. Raises: InvalidRequest."""
    if idempotency_key(call) is not None:
        return None
    refusals = web.submitter.refusals
    looks = refusals.refuses_early and len(call.body) <= SMALL_BYTES
    if looks and (refused := refusals.early(call.app.id, call.body)) is not None:
        # Not raised: it is the error of many calls, and each raise would add its frames to it.
        return problem(refused, call.id)
    is_plain = web.plain_jobs.takes(call.app, len(call.body))
    return Asked(web.plain_jobs.batching, call, partial(_submitted, call)) if is_plain else None


def _submitted(call: Call, outcome: Reply | partial[Reply] | BaseException | None) -> Reply | None:
    if isinstance(outcome, BaseException):
        raise outcome
    reply = outcome() if isinstance(outcome, partial) else outcome
    if reply is not None:
        call.calls_due = 0
    return reply


#: The fields of a plain body. They are cheap to check, and none of them needs anything but a place and a row.
PLAIN_FIELDS = frozenset(
    {
        *("model", "prompt", "messages", "max_tokens", "lane", "max_wait", "deadline", "overflow", "max_cost_usd"),
        *("temperature", "top_p", "stop", "seed", "metadata", "webhook", "end_user"),
    }
)


def plain_draft(body: bytes) -> Draft | None:
    """The draft of a plain job; None for any other body. Raises: InvalidRequest."""
    given = parse_object(body)
    if not PLAIN_FIELDS.issuperset(given) or given.get("model") == AUTO:
        return None
    return validated(JobRequest, given).to_draft()


def accepted_reply(accepted: Accepted) -> Reply:
    """The reply to an accepted job."""
    return with_job_headers(reply_of(AcceptedBody.of(accepted), 202), accepted)


def read(web: WebDeps, call: Call, public_id: str) -> Reply | Wait:
    """The job, by any spelling of its id; with `?wait=` once it has ended."""
    return when_ended(web, call, parse_id(public_id), query(WaitQuery, call).wait, job_reply)


def read_soon(web: WebDeps, call: Call, public_id: str) -> Asked | None:
    """The job as it stands."""
    if call.query:
        return None
    key = call.app.id, parse_id(public_id)
    return Asked(web.reader.batching, key, lambda found: job_reply(web.reader.job_of(*key, found)))


def job_reply(job: Job) -> Reply:
    """The job as it stands."""
    return with_job_headers(reply_of(JobBody.of(job)), job=job)


def delete(web: WebDeps, call: Call, public_id: str) -> Reply:
    """Erase the job's texts. The job is not found any more, and its cost is kept."""
    job_id = parse_id(public_id)
    erase(web, call, job_id)
    reply = reply_of(DeletedJob(id=show_id(job_id)))
    reply.headers["x-job-id"] = show_id(job_id)
    return reply


def cancel(web: WebDeps, call: Call, public_id: str) -> Reply | Wait:
    """The job as it stands after the request; safe to repeat."""
    return cancelled(web, call, parse_id(public_id), job_reply)


def list_newest(web: WebDeps, call: Call) -> Reply:
    """A page of the caller's jobs."""
    asked = query(JobsQuery, call)
    try:
        after = parse_id(asked.after) if asked.after else None
    except NotFound as error:
        raise InvalidRequest("Invalid 'after': it is not the id of a job.", param="after") from error
    with web.store.begin() as db:
        found = jobs.newest(db, call.app.id, state=asked.status, after=after, limit=asked.limit + 1)
    return listed(web, call, lambda: JobList.of([JobBody.of(job) for job in found], asked.limit))


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
SUBMIT_JOB = Operation(
    *("post", "/v1/jobs", submit, "jobs", "Submit a prompt", AcceptedBody, 202),
    body=JobRequest,
    examples=EXAMPLES,
    refusals=SUBMIT,
    soon=submit_soon,
)
READ_JOB = Operation(
    *("get", "/v1/jobs/{public_id}", read, "jobs", "Read a job, or wait for its end", JobBody),
    query=WaitQuery,
    refusals=(400, 404),
    may_wait=True,
    soon=read_soon,
)
OPERATIONS = (
    SUBMIT_JOB,
    Operation(
        *("get", "/v1/jobs", list_newest, "jobs", "List your jobs, newest first", JobList),
        query=JobsQuery,
        refusals=(400,),
    ),
    READ_JOB,
    Operation(
        "delete", "/v1/jobs/{public_id}", delete, "jobs", "Erase an ended job's texts", DeletedJob, refusals=(404, 409)
    ),
    Operation(
        *("post", "/v1/jobs/{public_id}/cancel", cancel, "jobs", "Cancel a job", JobBody),
        refusals=(404,),
        may_wait=True,
    ),
)
