"""Every operation of the API: its input, its answer and its errors. Knows no OpenAPI."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from api.reference.examples import (
    CHAT,
    CHAT_CHUNKS,
    COMPLETION_CHUNKS,
    COMPLETIONS,
    DETOKENIZE,
    EMBEDDINGS,
    JOBS,
    RESPONSE_EVENTS,
    RESPONSES,
    TOKENIZE,
)
from api.schemas.chat.body import ChatCompletionBody
from api.schemas.chat.request import ChatRequest
from api.schemas.completions.body import CompletionBody
from api.schemas.completions.request import CompletionRequest
from api.schemas.embeddings import EmbeddingList, EmbeddingRequest
from api.schemas.health import Health, Readiness, Version
from api.schemas.input_items import InputItemList, InputItemsQuery
from api.schemas.job_request import JobRequest
from api.schemas.jobs import (
    AcceptedBody,
    DeletedJob,
    JobBody,
    JobList,
    JobsQuery,
    WaitQuery,
)
from api.schemas.models import ModelBody, ModelList
from api.schemas.queues import QueueList
from api.schemas.response_body import DeletedResponse, ResponseBody
from api.schemas.responses import ResponseQuery, ResponseRequest
from api.schemas.tokens import DetokenizeBody, DetokenizeRequest, TokenizeBody, TokenizeRequest
from api.schemas.usage import UsageList, UsageQuery

#: Statuses that may refuse any request with a body.
READ_BODY = (400, 404, 408, 413, 415)
#: The same where it makes a job, before that is made.
SUBMIT = (*READ_BODY, 409, 422)


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        examples: valid bodies, by name.
        events: an example of its event stream; None where it has none.
        refusals: the statuses of its own errors, without those in `ALWAYS`.
        prefers_wait: whether it honours `Prefer: wait=n`.
        is_open: True when it needs no API key.
    """

    method: str
    path: str
    tag: str
    summary: str
    answer: type[BaseModel]
    status: int = 200
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    examples: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    events: str | None = None
    refusals: tuple[int, ...] = ()
    prefers_wait: bool = False
    is_open: bool = False

    @property
    def makes_job(self) -> bool:
        """True if its body becomes a job."""
        return self.body is not None and self.path.startswith("/v1/")


OPERATIONS = (
    Operation(
        *("post", "/v1/jobs", "jobs", "Submit a prompt", AcceptedBody, 202),
        body=JobRequest,
        examples=JOBS,
        refusals=SUBMIT,
    ),
    Operation("get", "/v1/jobs", "jobs", "List your jobs, newest first", JobList, query=JobsQuery, refusals=(400,)),
    Operation(
        *("get", "/v1/jobs/{id}", "jobs", "Read a job, or wait for its end", JobBody),
        query=WaitQuery,
        refusals=(400, 404),
    ),
    Operation("delete", "/v1/jobs/{id}", "jobs", "Erase an ended job's texts", DeletedJob, refusals=(404, 409)),
    Operation("post", "/v1/jobs/{id}/cancel", "jobs", "Cancel a job", JobBody, refusals=(404,)),
    Operation("get", "/v1/queues", "queues", "See how full the queues are", QueueList),
    Operation(
        *("get", "/v1/usage", "usage", "Read what you used and were charged", UsageList),
        query=UsageQuery,
        refusals=(400,),
    ),
    Operation(
        *("post", "/v1/responses", "OpenAI", "Create a response: in the background, waiting, or streaming"),
        ResponseBody,
        body=ResponseRequest,
        examples=RESPONSES,
        events=RESPONSE_EVENTS,
        refusals=(*SUBMIT, 504),
        prefers_wait=True,
    ),
    Operation(
        *("get", "/v1/responses/{id}", "OpenAI", "Retrieve a response, wait for its end, or resume its stream"),
        ResponseBody,
        query=ResponseQuery,
        events=RESPONSE_EVENTS,
        refusals=(400, 404),
    ),
    Operation(
        *("delete", "/v1/responses/{id}", "OpenAI", "Erase an ended response's texts", DeletedResponse),
        refusals=(404, 409),
    ),
    Operation(
        *("post", "/v1/responses/{id}/cancel", "OpenAI", "Cancel a response in the background", ResponseBody),
        refusals=(400, 404),
    ),
    Operation(
        *("get", "/v1/responses/{id}/input_items", "OpenAI", "List what was asked", InputItemList),
        query=InputItemsQuery,
        refusals=(400, 404),
    ),
    Operation(
        *("post", "/v1/chat/completions", "OpenAI", "Complete a chat: waiting, or streaming", ChatCompletionBody),
        body=ChatRequest,
        examples=CHAT,
        events=CHAT_CHUNKS,
        refusals=(*SUBMIT, 502, 504),
        prefers_wait=True,
    ),
    Operation(
        *("post", "/v1/completions", "OpenAI", "Continue a text: waiting, or streaming", CompletionBody),
        body=CompletionRequest,
        examples=COMPLETIONS,
        events=COMPLETION_CHUNKS,
        refusals=(*SUBMIT, 502, 504),
        prefers_wait=True,
    ),
    Operation(
        *("post", "/v1/embeddings", "OpenAI", "Embed texts, and wait for their vectors", EmbeddingList),
        body=EmbeddingRequest,
        examples=EMBEDDINGS,
        refusals=(*SUBMIT, 502, 504),
        prefers_wait=True,
    ),
    Operation("get", "/v1/models", "OpenAI", "List the models", ModelList),
    Operation("get", "/v1/models/{id}", "OpenAI", "Read a model", ModelBody, refusals=(404,)),
    Operation(
        *("post", "/tokenize", "vLLM", "Turn a text into a model's tokens", TokenizeBody),
        body=TokenizeRequest,
        examples=TOKENIZE,
        refusals=READ_BODY,
    ),
    Operation(
        *("post", "/detokenize", "vLLM", "Turn a model's tokens into a text", DetokenizeBody),
        body=DetokenizeRequest,
        examples=DETOKENIZE,
        refusals=READ_BODY,
    ),
    Operation("get", "/healthz", "health", "Is the process alive?", Health, is_open=True),
    Operation("get", "/health", "health", "Is the process alive? By vLLM's path", Health, is_open=True),
    Operation("get", "/ping", "health", "Is the process alive? By SageMaker's path", Health, is_open=True),
    Operation("post", "/ping", "health", "Is the process alive? By SageMaker's path", Health, is_open=True),
    Operation("get", "/version", "health", "Which release answers?", Version, is_open=True),
    Operation("get", "/readyz", "health", "Can it serve?", Readiness, is_open=True),
)


@dataclass(frozen=True, slots=True)
class ErrorStatus:
    """One status of errors: its meaning, the headers that say what to do, and the fields of an example."""

    description: str
    code: str
    type: str
    message: str
    param: str | None = None
    headers: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


REFUSALS: Mapping[int, ErrorStatus] = {
    400: ErrorStatus(
        "The request cannot be served as it is; `param` names the field.",
        *("invalid_value", "invalid_request_error"),
        *("Invalid 'max_tokens': Input should be greater than or equal to 1.", "max_tokens"),
    ),
    401: ErrorStatus(
        "No valid API key.",
        *("invalid_api_key", "invalid_request_error"),
        "No API key was given. Send it as 'Authorization: Bearer hr-…'.",
        headers=("WWW-Authenticate",),
    ),
    403: ErrorStatus(
        "A valid key that is not for this: a scope or a lane that it has not.",
        *("tier_not_allowed", "permission_error"),
        *("This app may not use the lane 'high'. Open to it: 'low', 'batch'.", "lane"),
    ),
    404: ErrorStatus(
        "No such thing, or another app's.",
        *("not_found", "invalid_request_error", "No job with id 'job_1'."),
    ),
    408: ErrorStatus(
        "The body came too slowly. Nothing was accepted.",
        *("body_timeout", "invalid_request_error"),
        "Less than 64 KiB of the body came in 10 s. Nothing was accepted. Send at least 64 KiB/s: send fewer large "
        "requests at once, or shorter ones.",
    ),
    409: ErrorStatus(
        "Not now: the job has not ended, or was cancelled while its caller waited, or another request with this "
        "Idempotency-Key is under way.",
        *("job_not_ended", "conflict_error", "The job has not ended yet."),
        headers=("Retry-After", "x-should-retry", "x-job-id"),
    ),
    413: ErrorStatus(
        "The body is too large.",
        *("request_too_large", "invalid_request_error", "The body is larger than 8388608 bytes."),
    ),
    415: ErrorStatus(
        "The body is packed in a way that is not read here.",
        *("unsupported_encoding", "invalid_request_error"),
        "The Content-Encoding 'br' is not read here. Send the body as it is, or with gzip.",
    ),
    422: ErrorStatus(
        "The Idempotency-Key was used with another body or path.",
        *("idempotency_key_reused", "idempotency_error"),
        *("This Idempotency-Key was used with another body or path. Use a new key.", "Idempotency-Key"),
    ),
    429: ErrorStatus(
        "No room: in the queue, in the app's own limits, or among the requests that are held open. Come back after "
        "`Retry-After` seconds; not at all with `x-should-retry: false`.",
        *("queue_full", "rate_limit_error"),
        "Queue chat.high is full: 500 jobs wait and its cap is 500. Retry after 3 s.",
        headers=("Retry-After", "x-should-retry", "x-ratelimit-limit-requests"),
        more={
            **{"reason": "depth", "queue": "chat.high", "depth": 500, "cap": 500, "unit": "jobs"},
            "expected_wait_s": 31.5,
        },
    ),
    500: ErrorStatus(
        "Ours to fix; tell us the `x-request-id`.",
        *("internal_error", "server_error", "Something went wrong here. Nothing was lost."),
    ),
    502: ErrorStatus(
        "The job ended without an answer, after every retry that made sense.",
        *("engine_fault", "server_error", "The engine failed."),
        headers=("x-should-retry", "x-job-id"),
    ),
    503: ErrorStatus(
        "A part of Headrace is down, and nothing was lost; or the job could not start in time, and cost nothing.",
        *("broker_unavailable", "server_error", "Redis does not answer. Nothing was lost; try again."),
        headers=("Retry-After",),
    ),
    504: ErrorStatus(
        "The job goes on, or its deadline passed: `x-job-id` names it. Sending it again would make a second one.",
        *("wait_timeout", "server_error"),
        "Job 'job_01a2106d0af9726ab10c9ac4f8a6ff5f' has not ended yet. It goes on: "
        "GET /v1/jobs/job_01a2106d0af9726ab10c9ac4f8a6ff5f?wait=30",
        headers=("x-should-retry", "x-job-id"),
    ),
}
#: Statuses that may refuse any call with an API key.
ALWAYS = (401, 403, 429, 500, 503)
