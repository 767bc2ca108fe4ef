"""`/v1/responses`: the same jobs in the format of OpenAI's SDK, by any spelling of their ids."""

from functools import partial

from flask import Blueprint, Response

from api.deps import answer, caller, deps, query
from api.door.drafts import Draft
from api.routes import existing
from api.routes.submission import body, headers_of, headers_of_job, read_job, submitted, waited_for
from api.schemas.body import validated
from api.schemas.input_items import InputItemList, InputItemsQuery
from api.schemas.response_body import DeletedResponse, ResponseBody
from api.schemas.responses import ResponseQuery, ResponseRequest
from api.streams.sse import response_stream
from api.unstored import erase_delivered
from headrace.domain.apps import App
from headrace.domain.ids import parse_id, show_id
from headrace.domain.jobs import Job
from headrace.errors import InvalidRequest
from headrace.store.jobs import texts

blueprint = Blueprint("responses", __name__, url_prefix="/v1/responses")


@blueprint.post("")
def create() -> Response:
    """200, and the response: at once in the background, else once it has ended, or as a stream of events."""
    app = caller(submits=True)
    draft = validated(ResponseRequest, body(app)).to_draft()
    if draft.stream:
        return _stream(draft, app)
    drafts, is_background, is_stored = [draft], draft.background, draft.is_stored
    del draft
    accepted, job = submitted(drafts.pop(), app) if is_background else waited_for(drafts, app)
    response = answer(ResponseBody.of(job, accepted), headers=headers_of(accepted, job))
    return response if is_stored else _unstored(response, job)


def _unstored(response: Response, job: Job) -> Response:
    """The response, of which nothing is kept once it is sent."""
    response.call_on_close(partial(erase_delivered, deps(), job.app_id, job.id))
    return response


def _stream(draft: Draft, app: App) -> Response:
    with deps().waits.hold("stream", app.id) as slot:
        accepted, job = submitted(draft, app)
        response = response_stream(job, slot, accepted=accepted)
    response.headers.update(headers_of(accepted))
    return response if draft.is_stored else _unstored(response, job)


@blueprint.get("/<public_id>")
def retrieve(public_id: str) -> Response:
    """The response, with `?wait=` once it has ended; with `?stream=true` its events, after any number."""
    app, job_id = caller(), parse_id(public_id)
    asked = query(ResponseQuery)
    if not asked.stream:
        return _answer(existing.when_ended(app, job_id, asked.wait))
    with deps().waits.hold("stream", app.id) as slot:
        response = response_stream(read_job(app, job_id), slot, starting_after=asked.starting_after)
    response.headers["x-job-id"] = show_id(job_id)
    return response


@blueprint.delete("/<public_id>")
def delete(public_id: str) -> Response:
    """Erase the response's texts. The response is not found any more, and its cost is kept."""
    app, job_id = caller(), parse_id(public_id)
    existing.erase(app, job_id)
    return answer(DeletedResponse.of(job_id), job_id=show_id(job_id))


@blueprint.post("/<public_id>/cancel")
def cancel(public_id: str) -> Response:
    """The response as it stands after the request; safe to repeat."""
    app, job_id = caller(), parse_id(public_id)
    if not read_job(app, job_id).background:
        raise InvalidRequest(
            "Only a response that was created with background=true can be cancelled here. "
            f"POST /v1/jobs/{show_id(job_id)}/cancel cancels any job.",
            code="not_background",
        )
    return _answer(existing.cancelled(app, job_id))


@blueprint.get("/<public_id>/input_items")
def input_items(public_id: str) -> Response:
    """A page of the response's input."""
    app, job_id = caller(), parse_id(public_id)
    asked = query(InputItemsQuery)
    with deps().store.begin() as db:
        turns = texts.conversation(db, app.id, job_id)
    return answer(InputItemList.of(job_id, turns, asked), job_id=show_id(job_id))


def _answer(job: Job) -> Response:
    return answer(ResponseBody.of(job), job_id=show_id(job.id), headers=headers_of_job(job))
