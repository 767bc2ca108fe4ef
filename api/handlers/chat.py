"""`/v1/chat/completions`: a job whose caller waits for its answer, or streams it."""

from collections.abc import Mapping
from typing import Any

from api.call import Call, Reply, Wait
from api.deps import WebDeps
from api.door.accepted import Accepted
from api.handlers.operation import QUESTION, SUBMIT, Operation
from api.handlers.submitting import checked_body, headers_of, reply_of, submitted, wait_for
from api.reading.job_error import job_error
from api.schemas.chat.body import ChatCompletionBody
from api.schemas.chat.request import ChatRequest
from api.streams.sse import chat_stream
from headrace.domain.jobs import Job
from headrace.domain.states import JobState


def create(web: WebDeps, call: Call) -> Reply | Wait:
    """200 and the answer, once the job has succeeded; or a stream of its chunks."""
    asked = checked_body(ChatRequest, web, call)
    if not asked.stream:
        return wait_for(web, call, asked.to_draft(), _reply)
    with web.waits.hold("stream", call.app.id) as slot:
        accepted, job = submitted(web, call, asked.to_draft())
        reply = chat_stream(web, call, job, slot, accepted, usage_in=asked.usage_in)
    reply.headers |= headers_of(accepted)
    return reply


def _reply(accepted: Accepted, job: Job) -> Reply:
    if job.state is not JobState.SUCCEEDED:
        raise job_error(job)
    return reply_of(ChatCompletionBody.of(job, accepted), headers=headers_of(accepted, job))


EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "waiting": {"messages": [{"role": "user", "content": QUESTION}], "max_completion_tokens": 64},
    "stream": {
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
        "stream_options": {"include_usage": True},
    },
}
CHUNKS = 'data: {"id":"chatcmpl-…","object":"chat.completion.chunk",…}\n\ndata: [DONE]\n\n'
OPERATIONS = (
    Operation(
        *("post", "/v1/chat/completions", create, "OpenAI", "Complete a chat: waiting, or streaming"),
        ChatCompletionBody,
        body=ChatRequest,
        examples=EXAMPLES,
        events=CHUNKS,
        refusals=(*SUBMIT, 502, 504),
        prefers_wait=True,
    ),
)
