"""`/v1/jobs`: submit, read, list, cancel and delete jobs, in Headrace's own format."""

from flask import Blueprint, Response

from api.deps import answer, caller, deps, query
from api.routes import existing
from api.routes.submission import accept, body, headers_of, headers_of_job, idempotency
from api.schemas.body import validated
from api.schemas.job_request import JobRequest
from api.schemas.jobs import AcceptedBody, DeletedJob, JobBody, JobList, JobsQuery, WaitQuery
from headrace.domain.ids import parse_id, show_id
from headrace.domain.jobs import Job
from headrace.errors import InvalidRequest, NotFound
from headrace.store import jobs

blueprint = Blueprint("jobs", __name__, url_prefix="/v1/jobs")


@blueprint.post("")
def submit() -> Response:
    """202, and the job's place in its queue."""
    app = caller(submits=True)
    draft = validated(JobRequest, body(app)).to_draft()
    accepted = accept(draft, app, idempotency())
    return answer(AcceptedBody.of(accepted), 202, headers=headers_of(accepted))


@blueprint.get("/<public_id>")
def read(public_id: str) -> Response:
    """The job, by any spelling of its id; with `?wait=` once it has ended."""
    app, job_id = caller(), parse_id(public_id)
    return _answer(existing.when_ended(app, job_id, query(WaitQuery).wait))


@blueprint.delete("/<public_id>")
def delete(public_id: str) -> Response:
    """Erase the job's texts. The job is not found any more, and its cost is kept."""
    app, job_id = caller(), parse_id(public_id)
    existing.erase(app, job_id)
    return answer(DeletedJob(id=show_id(job_id)), job_id=show_id(job_id))


@blueprint.post("/<public_id>/cancel")
def cancel(public_id: str) -> Response:
    """The job as it stands after the request; safe to repeat."""
    return _answer(existing.cancelled(caller(), parse_id(public_id)))


@blueprint.get("")
def list_newest() -> Response:
    """A page of the caller's jobs."""
    app = caller()
    asked = query(JobsQuery)
    try:
        after = parse_id(asked.after) if asked.after else None
    except NotFound as error:
        raise InvalidRequest("Invalid 'after': it is not the id of a job.", param="after") from error
    with deps().store.begin() as db:
        found = jobs.newest(db, app.id, state=asked.status, after=after, limit=asked.limit + 1)
    return answer(JobList.of(found, asked.limit))


def _answer(job: Job) -> Response:
    return answer(JobBody.of(job), job_id=show_id(job.id), headers=headers_of_job(job))
