"""`/v1/completions`: a job whose caller waits for the continuation of a plain prompt, or streams it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from api.call import Call, Reply, Wait
from api.deps import WebDeps
from api.door.accepted import Accepted
from api.handlers.operation import SUBMIT, Operation
from api.handlers.submitting import checked_body, headers_of, reply_of, submitted, wait_for
from api.reading.job_error import job_error
from api.schemas.completions.body import CompletionBody
from api.schemas.completions.request import CompletionRequest
from api.streams.sse import completion_stream
from headrace.domain.jobs import Job
from headrace.domain.states import JobState


def create(web: WebDeps, call: Call) -> Reply | Wait:
    """200 and the continuation, once the job has succeeded; or a stream of its chunks."""
    asked = checked_body(CompletionRequest, web, call)
    if not asked.stream:
        return wait_for(web, call, asked.to_draft(), partial(_reply, asked.echoed))
    with web.waits.hold("stream", call.app.id) as slot:
        accepted, job = submitted(web, call, asked.to_draft())
        reply = completion_stream(web, call, job, slot, accepted, echoed=asked.echoed, usage_in=asked.usage_in)
    reply.headers |= headers_of(accepted)
    return reply


def _reply(echoed: str, accepted: Accepted, job: Job) -> Reply:
    if job.state is not JobState.SUCCEEDED:
        raise job_error(job)
    return reply_of(CompletionBody.of(job, accepted, echoed), headers=headers_of(accepted, job))


EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "waiting": {"prompt": "The sky is", "max_tokens": 64},
    "stream": {"prompt": [72, 105], "stream": True, "min_tokens": 8, "ignore_eos": True},
}
CHUNKS = 'data: {"id":"cmpl-…","object":"text_completion",…}\n\ndata: [DONE]\n\n'
OPERATIONS = (
    Operation(
        *("post", "/v1/completions", create, "OpenAI", "Continue a text: waiting, or streaming", CompletionBody),
        body=CompletionRequest,
        examples=EXAMPLES,
        events=CHUNKS,
        refusals=(*SUBMIT, 502, 504),
        prefers_wait=True,
    ),
)
