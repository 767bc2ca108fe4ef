"""`/v1/responses`: the same jobs in the format of OpenAI's SDK, by any spelling of their ids."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from flask import Blueprint, Response

from api.abandoned import erase_delivered
from api.calls import caller, parts, turn
from api.door.drafts import Accepted, Draft
from api.routes.jobs import cancelled, erase, when_ended
from api.routes.operations import QUESTION, SUBMIT, describes
from api.routes.replies import reply_of, with_job_headers
from api.routes.requests import checked_body, query, read, streamed, submitted, wait_for
from api.schemas.response_body import DeletedResponse, InputItemList, InputItemsQuery, ResponseBody
from api.schemas.response_request import ResponseQuery, ResponseRequest
from api.streams.sse import response_stream
from headrace.domain.ids import parse_id, show_id
from headrace.domain.jobs import Job
from headrace.errors import InvalidRequest
from headrace.store.jobs import texts

ROUTES = Blueprint("responses", __name__)
EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "background": {"input": QUESTION, "background": True, "max_output_tokens": 64},
    "waiting": {"input": QUESTION, "instructions": "Be brief.", "service_tier": "priority"},
    "stream": {"input": QUESTION, "stream": True, "background": True},
    "patient": {
        "input": [{"role": "user", "content": QUESTION}],
        "background": True,
        "background_options": {"completion_window": "2h"},
        "job": {"overflow": "never"},
    },
}
EVENTS = 'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":{…}}\n\n'


@ROUTES.post("/v1/responses")
@describes(
    "OpenAI",
    "Create a response: in the background, waiting, or streaming",
    ResponseBody,
    body=ResponseRequest,
    makes="job",
    examples=EXAMPLES,
    events=EVENTS,
    refusals=(*SUBMIT, 504),
    prefers_wait=True,
)
def create() -> Response:
    """Replies with the response: at once in the background, else once it has ended, or as a stream of events."""
    draft = checked_body(ResponseRequest).to_draft()
    if draft.stream:
        return _stream(draft)
    if draft.background:
        return _created(draft.is_stored, *submitted(draft))
    return wait_for(draft, partial(_created, draft.is_stored))


@ROUTES.get("/v1/responses/<public_id>")
@describes(
    "OpenAI",
    "Retrieve a response, wait for its end, or resume its stream",
    ResponseBody,
    query=ResponseQuery,
    events=EVENTS,
    refusals=(400, 404),
)
def retrieve(public_id: str) -> Response:
    """Returns the response, with `?wait=` once it has ended; with `?stream=true` its events, after any number."""
    job_id, asked = parse_id(public_id), query(ResponseQuery)
    if not asked.stream:
        return when_ended(job_id, asked.wait, _reply)
    with parts().waits.hold("stream", caller().id) as slot:
        reply = streamed(response_stream(parts(), read(job_id), slot, starting_after=asked.starting_after))
    reply.headers["x-job-id"] = show_id(job_id)
    return reply


@ROUTES.delete("/v1/responses/<public_id>")
@describes("OpenAI", "Erase an ended response's texts", DeletedResponse, refusals=(404, 409))
def delete(public_id: str) -> Response:
    """Erase the response's texts. The response is not found any more, and its cost is kept."""
    job_id = parse_id(public_id)
    erase(job_id)
    reply = reply_of(DeletedResponse.of(job_id))
    reply.headers["x-job-id"] = show_id(job_id)
    return reply


@ROUTES.post("/v1/responses/<public_id>/cancel")
@describes("OpenAI", "Cancel a response in the background", ResponseBody, refusals=(400, 404))
def cancel(public_id: str) -> Response:
    """Returns the response as it stands after the request; safe to repeat."""
    job_id = parse_id(public_id)
    if not read(job_id).background:
        raise InvalidRequest(
            "Only a response that was created with background=true can be cancelled here. "
            f"POST /v1/jobs/{show_id(job_id)}/cancel cancels any job.",
            code="not_background",
        )
    return cancelled(job_id, _reply)


@ROUTES.get("/v1/responses/<public_id>/input_items")
@describes("OpenAI", "List what was asked", InputItemList, query=InputItemsQuery, refusals=(400, 404))
def input_items(public_id: str) -> Response:
    """Returns a page of the response's input."""
    job_id, asked = parse_id(public_id), query(InputItemsQuery)
    with parts().store.begin() as db:
        turns = texts.conversation(db, caller().id, job_id)
    reply = reply_of(InputItemList.of(job_id, turns, asked))
    reply.headers["x-job-id"] = show_id(job_id)
    return reply


def _stream(draft: Draft) -> Response:
    with parts().waits.hold("stream", caller().id) as slot:
        accepted, job = submitted(draft)
        reply = streamed(response_stream(parts(), job, slot, accepted=accepted))
    if not draft.is_stored:
        _forget_when_sent(job)
    return with_job_headers(reply, accepted)


def _created(is_stored: bool, accepted: Accepted, job: Job) -> Response:
    if not is_stored:
        _forget_when_sent(job)
    return with_job_headers(reply_of(ResponseBody.of(job, accepted)), accepted, job)


def _forget_when_sent(job: Job) -> None:
    """Keep nothing of the response once it is sent."""
    turn().closing.append(partial(erase_delivered, parts(), job.app_id, job.id))


def _reply(job: Job) -> Response:
    return with_job_headers(reply_of(ResponseBody.of(job)), job=job)
