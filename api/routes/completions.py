"""`/v1/completions`: a job whose caller waits for the continuation of a plain prompt, or streams it."""

from flask import Blueprint, Response

from api.deps import answer, caller, deps
from api.errors.job_error import job_error
from api.routes.submission import body, headers_of, submitted, waited_for
from api.schemas.body import validated
from api.schemas.completions.body import CompletionBody
from api.schemas.completions.request import CompletionRequest
from api.streams.sse import completion_stream
from headrace.domain.apps import App
from headrace.domain.states import JobState

blueprint = Blueprint("completions", __name__, url_prefix="/v1/completions")


@blueprint.post("")
def create() -> Response:
    """200 and the continuation, once the job has succeeded; or a stream of its chunks."""
    app = caller(submits=True)
    asked = validated(CompletionRequest, body(app))
    if asked.stream:
        return _stream(asked, app)
    drafts, echoed = [asked.to_draft()], asked.echoed
    del asked
    accepted, job = waited_for(drafts, app)
    if job.state is not JobState.SUCCEEDED:
        raise job_error(job)
    return answer(CompletionBody.of(job, accepted, echoed), headers=headers_of(accepted, job))


def _stream(asked: CompletionRequest, app: App) -> Response:
    with deps().waits.hold("stream", app.id) as slot:
        accepted, job = submitted(asked.to_draft(), app)
        response = completion_stream(job, slot, accepted, echoed=asked.echoed, usage_in=asked.usage_in)
    response.headers.update(headers_of(accepted))
    return response
