"""`/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`: jobs whose callers wait for the answer, or stream it."""

from collections.abc import Callable
from functools import partial

from flask import Blueprint, Response

from api.calls import caller, parts
from api.door.drafts import Accepted
from api.routes.formats import CHAT, COMPLETION, EMBEDDINGS, BodyOf
from api.routes.operations import QUESTION, SUBMIT, describes
from api.routes.replies import reply_of, with_job_headers
from api.routes.requests import Replying, checked_body, streamed, submitted, wait_for
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

ROUTES = Blueprint("completions", __name__)


@ROUTES.post("/v1/chat/completions")
@describes(
    "OpenAI",
    "Complete a chat: waiting, or streaming",
    ChatCompletionBody,
    body=ChatRequest,
    makes="job",
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
)
def complete_chat() -> Response:
    """Replies with 200 and the answer, once the job has succeeded; or a stream of its chunks."""
    asked = checked_body(ChatRequest)
    if not asked.stream:
        return wait_for(asked.to_draft(), _replying(CHAT.body_of(lambda: asked)))
    return _streamed(asked, partial(ChatChunks, usage_in=asked.usage_in, error_of=_errors()))


@ROUTES.post("/v1/completions")
@describes(
    "OpenAI",
    "Continue a text: waiting, or streaming",
    CompletionBody,
    body=CompletionRequest,
    makes="job",
    examples={
        "waiting": {"prompt": "The sky is", "max_tokens": 64},
        "stream": {"prompt": [72, 105], "stream": True, "min_tokens": 8, "ignore_eos": True},
    },
    events='data: {"id":"cmpl-…","object":"text_completion",…}\n\ndata: [DONE]\n\n',
    refusals=(*SUBMIT, 502, 504),
    prefers_wait=True,
)
def complete() -> Response:
    """Replies with 200 and the continuation, once the job has succeeded; or a stream of its chunks."""
    asked = checked_body(CompletionRequest)
    if not asked.stream:
        return wait_for(asked.to_draft(), _replying(COMPLETION.body_of(lambda: asked)))
    chunks_of = partial(CompletionChunks, echoed=asked.echoed, usage_in=asked.usage_in, error_of=_errors())
    return _streamed(asked, chunks_of)


@ROUTES.post("/v1/embeddings")
@describes(
    "OpenAI",
    "Embed texts, and wait for their vectors",
    EmbeddingList,
    body=EmbeddingRequest,
    makes="job",
    examples={
        "one": {"input": QUESTION},
        "many": {"input": [QUESTION, "What colour is the sky?"], "encoding_format": "base64", "job": {"lane": "low"}},
    },
    refusals=(*SUBMIT, 502, 504),
    prefers_wait=True,
)
def embed() -> Response:
    """Replies with 200 and the vectors, once the job has succeeded."""
    asked = checked_body(EmbeddingRequest)
    return wait_for(asked.to_draft(), _replying(EMBEDDINGS.body_of(lambda: asked)))


def _replying(body_of: BodyOf) -> Replying:
    """Makes the reply to a job that has succeeded, or raises the error of one that has not."""
    error_of = _errors()

    def reply(accepted: Accepted, job: Job) -> Response:
        if job.state is not JobState.SUCCEEDED:
            raise error_of(job)
        return with_job_headers(reply_of(body_of(job, accepted)), accepted, job)

    return reply


def _errors() -> Callable[[Job], HeadraceError]:
    """Makes the error of a job that has ended and did not succeed; it says if no worker serves the job's pool.

    A stream calls it outside the app.
    """
    find = parts().vacancies.find

    def error_of(job: Job) -> HeadraceError:
        return job_error(job, find(parts_of(job.queue)[0]) if job.state is JobState.EXPIRED else None)

    return error_of


def _streamed(asked: ChatRequest | CompletionRequest, chunks_of: Callable[[Job], ChatChunks]) -> Response:
    with parts().waits.hold("stream", caller().id) as slot:
        accepted, job = submitted(asked.to_draft())
        reply = streamed(chunk_stream(parts(), job, slot, accepted, chunks_of(job)))
    return with_job_headers(reply, accepted)
