"""`/v1/chat/completions`: a job whose caller waits for its answer, or streams it."""

from flask import Blueprint, Response

from api.deps import answer, caller, deps
from api.errors.job_error import job_error
from api.routes.submission import body, headers_of, submitted, waited_for
from api.schemas.body import validated
from api.schemas.chat.body import ChatCompletionBody
from api.schemas.chat.request import ChatRequest
from api.streams.sse import chat_stream
from headrace.domain.apps import App
from headrace.domain.states import JobState

blueprint = Blueprint("chat", __name__, url_prefix="/v1/chat/completions")


@blueprint.post("")
def create() -> Response:
    """200 and the answer, once the job has succeeded; or a stream of its chunks."""
    app = caller(submits=True)
    asked = validated(ChatRequest, body(app))
    if asked.stream:
        return _stream(asked, app)
    drafts = [asked.to_draft()]
    del asked
    accepted, job = waited_for(drafts, app)
    if job.state is not JobState.SUCCEEDED:
        raise job_error(job)
    return answer(ChatCompletionBody.of(job, accepted), headers=headers_of(accepted, job))


def _stream(asked: ChatRequest, app: App) -> Response:
    with deps().waits.hold("stream", app.id) as slot:
        accepted, job = submitted(asked.to_draft(), app)
        response = chat_stream(job, slot, accepted=accepted, usage_in=asked.usage_in)
    response.headers.update(headers_of(accepted))
    return response
