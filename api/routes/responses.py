"""`/v1/responses`: the same jobs, in the words of OpenAI's SDK."""

from flask import Blueprint, Response

from api.deps import answer, caller, deps
from api.routes.submission import body, cancelled, idempotency, job_when_ended
from api.schemas.body import validated
from api.schemas.response_body import ResponseBody
from api.schemas.responses import ResponseRequest
from api.submit import Accepted
from headrace.jobs import parse_id, show_id
from headrace.store import jobs
from headrace.store.jobs import Job

blueprint = Blueprint("responses", __name__, url_prefix="/v1/responses")

PREFIXES = ("resp_",)


@blueprint.post("")
def create() -> Response:
    """200, and the response as it stands: queued."""
    app = caller()
    draft = validated(ResponseRequest, body()).to_draft()
    accepted = deps().submitter.submit(draft, app, idempotency())
    with deps().store.begin() as db:
        job = jobs.find(db, app.id, accepted.job_id)
    return _answer(job, accepted)


@blueprint.get("/<public_id>")
def retrieve(public_id: str) -> Response:
    """The response; with `?wait=` once it has ended."""
    return _answer(job_when_ended(caller(), parse_id(public_id, PREFIXES)))


@blueprint.post("/<public_id>/cancel")
def cancel(public_id: str) -> Response:
    """The response as it stands after the request; safe to repeat."""
    return _answer(cancelled(caller(), parse_id(public_id, PREFIXES)))


def _answer(job: Job, accepted: Accepted | None = None) -> Response:
    replayed = {"Idempotent-Replayed": "true"} if accepted and accepted.is_replay else {}
    return answer(ResponseBody.of(job, accepted), job_id=show_id(job.id), headers=replayed)
