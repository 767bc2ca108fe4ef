"""`/v1/responses`: the same jobs in the format of OpenAI's SDK, by any spelling of their ids."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from api.abandoned import erase_delivered
from api.call import QUESTION, SUBMIT, Call, Operation, Reply, Wait
from api.deps import WebDeps
from api.door.drafts import Accepted, Draft
from api.handlers.jobs import cancelled, erase, when_ended
from api.handlers.replies import reply_of, with_job_headers
from api.handlers.submitting import checked_body, query, read, submitted, wait_for
from api.schemas.response_body import DeletedResponse, InputItemList, InputItemsQuery, ResponseBody
from api.schemas.response_request import ResponseQuery, ResponseRequest
from api.streams.sse import response_stream
from headrace.domain.ids import parse_id, show_id
from headrace.domain.jobs import Job
from headrace.errors import InvalidRequest
from headrace.store.jobs import texts


def create(web: WebDeps, call: Call) -> Reply | Wait:
    """200, and the response: at once in the background, else once it has ended, or as a stream of events."""
    draft = checked_body(ResponseRequest, web, call).to_draft()
    if draft.stream:
        return _stream(web, call, draft)
    reply = partial(_created, web, draft.is_stored)
    return reply(*submitted(web, call, draft)) if draft.background else wait_for(web, call, draft, reply)


def _stream(web: WebDeps, call: Call, draft: Draft) -> Reply:
    with web.waits.hold("stream", call.app.id) as slot:
        accepted, job = submitted(web, call, draft)
        reply = response_stream(web, call, job, slot, accepted=accepted)
    reply = with_job_headers(reply, accepted)
    return reply if draft.is_stored else _unstored(web, reply, job)


def _created(web: WebDeps, is_stored: bool, accepted: Accepted, job: Job) -> Reply:
    reply = with_job_headers(reply_of(ResponseBody.of(job, accepted)), accepted, job)
    return reply if is_stored else _unstored(web, reply, job)


def _unstored(web: WebDeps, reply: Reply, job: Job) -> Reply:
    """The reply; nothing of the response is kept once it is sent."""
    reply.on_close.append(partial(erase_delivered, web, job.app_id, job.id))
    return reply


def retrieve(web: WebDeps, call: Call, public_id: str) -> Reply | Wait:
    """The response, with `?wait=` once it has ended; with `?stream=true` its events, after any number."""
    job_id, asked = parse_id(public_id), query(ResponseQuery, call)
    if not asked.stream:
        return when_ended(web, call, job_id, asked.wait, _reply)
    with web.waits.hold("stream", call.app.id) as slot:
        reply = response_stream(web, call, read(web, call, job_id), slot, starting_after=asked.starting_after)
    reply.headers["x-job-id"] = show_id(job_id)
    return reply


def _reply(job: Job) -> Reply:
    return with_job_headers(reply_of(ResponseBody.of(job)), job=job)


def delete(web: WebDeps, call: Call, public_id: str) -> Reply:
    """Erase the response's texts. The response is not found any more, and its cost is kept."""
    job_id = parse_id(public_id)
    erase(web, call, job_id)
    reply = reply_of(DeletedResponse.of(job_id))
    reply.headers["x-job-id"] = show_id(job_id)
    return reply


def cancel(web: WebDeps, call: Call, public_id: str) -> Reply | Wait:
    """The response as it stands after the request; safe to repeat."""
    job_id = parse_id(public_id)
    if not read(web, call, job_id).background:
        raise InvalidRequest(
            "Only a response that was created with background=true can be cancelled here. "
            f"POST /v1/jobs/{show_id(job_id)}/cancel cancels any job.",
            code="not_background",
        )
    return cancelled(web, call, job_id, _reply)


def input_items(web: WebDeps, call: Call, public_id: str) -> Reply:
    """A page of the response's input."""
    job_id, asked = parse_id(public_id), query(InputItemsQuery, call)
    with web.store.begin() as db:
        turns = texts.conversation(db, call.app.id, job_id)
    reply = reply_of(InputItemList.of(job_id, turns, asked))
    reply.headers["x-job-id"] = show_id(job_id)
    return reply


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
OPERATIONS = (
    Operation(
        *("post", "/v1/responses", create, "OpenAI"),
        "Create a response: in the background, waiting, or streaming",
        ResponseBody,
        body=ResponseRequest,
        examples=EXAMPLES,
        events=EVENTS,
        refusals=(*SUBMIT, 504),
        prefers_wait=True,
    ),
    Operation(
        *("get", "/v1/responses/{public_id}", retrieve, "OpenAI"),
        "Retrieve a response, wait for its end, or resume its stream",
        ResponseBody,
        query=ResponseQuery,
        events=EVENTS,
        refusals=(400, 404),
        may_wait=True,
    ),
    Operation(
        *("delete", "/v1/responses/{public_id}", delete, "OpenAI", "Erase an ended response's texts", DeletedResponse),
        refusals=(404, 409),
    ),
    Operation(
        *(
            "post",
            "/v1/responses/{public_id}/cancel",
            cancel,
            "OpenAI",
            "Cancel a response in the background",
            ResponseBody,
        ),
        refusals=(400, 404),
        may_wait=True,
    ),
    Operation(
        *("get", "/v1/responses/{public_id}/input_items", input_items, "OpenAI", "List what was asked", InputItemList),
        query=InputItemsQuery,
        refusals=(400, 404),
    ),
)
