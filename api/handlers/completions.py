"""`/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`: jobs whose callers wait for the answer, or stream it."""

from collections.abc import Callable
from functools import partial

from api.call import QUESTION, SUBMIT, Call, Operation, Reply, Wait
from api.deps import WebDeps
from api.door.drafts import Accepted
from api.handlers.formats import CHAT, COMPLETION, EMBEDDINGS, BodyOf
from api.handlers.replies import reply_of, with_job_headers
from api.handlers.submitting import Replying, checked_body, submitted, wait_for
from api.schemas.chat import ChatCompletionBody, ChatRequest
from api.schemas.completions import CompletionBody, CompletionRequest
from api.schemas.embeddings import EmbeddingList, EmbeddingRequest
from api.schemas.openai import job_error
from api.streams.chunks import ChatChunks, CompletionChunks
from api.streams.sse import chunk_stream
from headrace.domain.jobs import Job
from headrace.domain.queues import parts_of
from headrace.domain.states import JobState
from headrace.errors import HeadraceError


def complete_chat(web: WebDeps, call: Call) -> Reply | Wait:
    """200 and the answer, once the job has succeeded; or a stream of its chunks."""
    asked = checked_body(ChatRequest, web, call)
    if not asked.stream:
        return wait_for(web, call, asked.to_draft(), _replying(web, CHAT.body_of(lambda: asked)))
    chunks_of = partial(ChatChunks, usage_in=asked.usage_in, error_of=partial(_error_of, web))
    return _streamed(web, call, asked, chunks_of)


def complete(web: WebDeps, call: Call) -> Reply | Wait:
    """200 and the continuation, once the job has succeeded; or a stream of its chunks."""
    asked = checked_body(CompletionRequest, web, call)
    if not asked.stream:
        return wait_for(web, call, asked.to_draft(), _replying(web, COMPLETION.body_of(lambda: asked)))
    error_of = partial(_error_of, web)
    chunks_of = partial(CompletionChunks, echoed=asked.echoed, usage_in=asked.usage_in, error_of=error_of)
    return _streamed(web, call, asked, chunks_of)


def embed(web: WebDeps, call: Call) -> Reply | Wait:
    """200 and the vectors, once the job has succeeded."""
    asked = checked_body(EmbeddingRequest, web, call)
    return wait_for(web, call, asked.to_draft(), _replying(web, EMBEDDINGS.body_of(lambda: asked)))


def _replying(web: WebDeps, body_of: BodyOf) -> Replying:
    """Makes the reply to a job that has succeeded, or raises the error of one that has not."""

    def reply(accepted: Accepted, job: Job) -> Reply:
        if job.state is not JobState.SUCCEEDED:
            raise _error_of(web, job)
        return with_job_headers(reply_of(body_of(job, accepted)), accepted, job)

    return reply


def _error_of(web: WebDeps, job: Job) -> HeadraceError:
    """The error of a job that has ended and did not succeed; it says if no worker serves the job's pool."""
    return job_error(job, web.vacancies.find(parts_of(job.queue)[0]) if job.state is JobState.EXPIRED else None)


def _streamed(
    web: WebDeps, call: Call, asked: ChatRequest | CompletionRequest, chunks_of: Callable[[Job], ChatChunks]
) -> Reply:
    with web.waits.hold("stream", call.app.id) as slot:
        accepted, job = submitted(web, call, asked.to_draft())
        reply = chunk_stream(web, call, job, slot, accepted, chunks_of(job))
    return with_job_headers(reply, accepted)


OPERATIONS = (
    Operation(
        *("post", "/v1/chat/completions", complete_chat, "OpenAI", "Complete a chat: waiting, or streaming"),
        ChatCompletionBody,
        body=ChatRequest,
        examples={
            "waiting": {"messages": [{"role": "user", "content": QUESTION}], "max_completion_tokens": 64},
            "stream": {
                "messages": [{"role": "user", "content": QUESTION}],
                "stream": True,
                "stream_options": {"include_usage": True},
            },
        },
        events='data: {"id":"chatcmpl-…","object":"chat.completion.chunk",…}\n\ndata: [DONE]\n\n',
        refusals=(*SUBMIT, 502, 504),
        prefers_wait=True,
    ),
    Operation(
        *("post", "/v1/completions", complete, "OpenAI", "Continue a text: waiting, or streaming", CompletionBody),
        body=CompletionRequest,
        examples={
            "waiting": {"prompt": "The sky is", "max_tokens": 64},
            "stream": {"prompt": [72, 105], "stream": True, "min_tokens": 8, "ignore_eos": True},
        },
        events='data: {"id":"cmpl-…","object":"text_completion",…}\n\ndata: [DONE]\n\n',
        refusals=(*SUBMIT, 502, 504),
        prefers_wait=True,
    ),
    Operation(
        *("post", "/v1/embeddings", embed, "OpenAI", "Embed texts, and wait for their vectors", EmbeddingList),
        body=EmbeddingRequest,
        examples={
            "one": {"input": QUESTION},
            "many": {
                "input": [QUESTION, "What colour is the sky?"],
                "encoding_format": "base64",
                "job": {"lane": "low"},
            },
        },
        refusals=(*SUBMIT, 502, 504),
        prefers_wait=True,
    ),
)
