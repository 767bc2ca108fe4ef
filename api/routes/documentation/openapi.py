"""The API as an OpenAPI document, made from the models that check requests and shape answers."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel, Field
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from api.hooks import Webhook
from api.routes.documentation.descriptions import ABOUT, OPERATIONS, WEBHOOKS
from api.routes.operations import JSON, Operation
from api.schemas.fields import Answer
from api.schemas.reports import Readiness

REF = "#/components/schemas/{model}"

REPLAYED = "Idempotent-Replayed"
HEADERS: Mapping[str, str] = {
    "x-request-id": "Names this request, in our logs too.",
    "openai-processing-ms": "Milliseconds that the request took here.",
    "x-job-id": "Names the job, whatever the body's shape.",
    "x-headrace-cost-usd": "What the job cost its app, in USD; only once it has ended.",
    "x-headrace-cache": "hit: given an identical job's answer; shared: that of one under way; semantic: that to the "
    "same question in other words; miss: there was none.",
    "x-headrace-confined-until": "Of a confined app: until when its jobs of this model's pool run one at a time.",
    REPLAYED: "`true` when the Idempotency-Key had made this job, or what the call makes, before.",
    "Retry-After": "Whole seconds after which to try again, 120 at most.",
    "x-should-retry": "`false` where trying again would only do harm; OpenAI's SDK heeds it.",
    "WWW-Authenticate": "The scheme: `Bearer`.",
    "x-ratelimit-limit-requests": "Of an app with limits: requests a minute. `-remaining-` and `-reset-` go with it, "
    "and the same three for `tokens`; where the rate of calls refused it, for `calls`.",
}


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
        *("Invalid 'max_tokens': Input should be greater than or equal to 1, not 0.", "max_tokens"),
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
    431: ErrorStatus(
        "A header, or all of them together, is too long. Above 16 KiB in all the reply has no body.",
        *("header_too_large", "invalid_request_error", "The header 'if-none-match' is longer than 1024 bytes."),
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
        "A part of Headrace is down, and nothing was lost; or the job could not start in time, and cost nothing. With "
        "the reason `no_worker`, no worker serves its queue.",
        *("broker_unavailable", "server_error", "Redis does not answer. Nothing was lost; try again."),
        headers=("Retry-After", "x-should-retry"),
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
ALWAYS = (401, 403, 429, 431, 500, 503)
#: The meaning and the pattern of `{id}` in each family of paths.
IDS: Mapping[str, tuple[str, str]] = {
    "jobs": ("A job's id, in any of its spellings.", "^(job_|resp_|chatcmpl-|cmpl-)[0-9a-f]{32}$"),
    "responses": ("A response's id.", "^resp_[0-9a-f]{32}$"),
    "models": ("A model's name, slashes included.", "^[0-9A-Za-z][0-9A-Za-z._/-]*$"),
}
IDEMPOTENCY_KEY = {"type": "string", "pattern": "^[ -~]+$", "maxLength": 255}
#: One event of a stream: OpenAPI 3.1 cannot describe a whole stream.
EVENT = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}}
EVERYWHERE = ("x-request-id", "openai-processing-ms")
OF_A_JOB = ("x-job-id", "x-headrace-cost-usd", "x-headrace-cache")
OF_A_SUBMIT = (*OF_A_JOB, "x-headrace-confined-until", REPLAYED, "x-ratelimit-limit-requests")


def document(operations: Sequence[Operation], webhooks: Sequence[Webhook] = ()) -> dict[str, Any]:
    """Returns the whole document, OpenAPI 3.1. Args: webhooks: those of plugins."""
    sent = [*(Webhook(event, text, JobEnded) for event, text in WEBHOOKS.items()), *webhooks]
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(path_of(each), {})[each.method] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headrace", "version": version("headrace"), "description": ABOUT},
        "paths": paths,
        "webhooks": {each.event: {"post": _webhook(each)} for each in sent},
        "components": {
            "schemas": _schemas(operations, [each.data for each in sent]),
            "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


class ProblemReply(Answer):
    """One error. `param` is the dotted path of the field at fault. The rest is there only where it is told of."""

    message: str
    type: str
    param: str | None
    code: str
    reason: str = Field("", description="With 429: which bound was met. no_worker, also with 503: no worker serves.")
    queue: str = Field("", description="queue_full: the job's own queue.")
    depth: int = Field(0, description="queue_full: what waits in it, in the unit of the cap.")
    cap: int = Field(0, description="queue_full: the bound.")
    unit: Literal["jobs", "tokens"] = Field(
        "jobs", description="queue_full: of depth and cap; tokens for the reasons tokens, token_share and wait."
    )
    expected_wait_s: float | None = Field(
        None, description="queue_full: until a job at its end would start; null while it is unknown."
    )
    worker_in_s: float | None = Field(
        None, description="no_worker: seconds until the host on order is likely ready; null without one."
    )


class ProblemBody(Answer):
    """An answer that is an error."""

    error: ProblemReply


class JobEnded(Answer):
    """The job of a webhook: `id` is what OpenAI's SDK retrieves as a response."""

    id: str
    job_id: str
    status: Literal["succeeded", "failed", "expired", "cancelled"]


def _schemas(operations: Sequence[Operation], sent: Sequence[type[BaseModel]]) -> dict[str, Any]:
    answers: list[type[BaseModel]] = [ProblemBody, *sent]
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(each, "serialization") for each in answers]
    for each in operations:
        models.append((_answer_of(each), "serialization"))
        if each.body:
            models.append((each.body, "validation"))
    _, definitions = models_json_schema(list(dict.fromkeys(models)), ref_template=REF)
    schemas: dict[str, Any] = definitions["$defs"]
    return schemas


def path_of(each: Operation) -> str:
    """Spells the path as the document does: whatever a parameter is called, it is an id."""
    return re.sub(r"\{\w+\}", "{id}", each.path)


def _answer_of(each: Operation) -> type[BaseModel]:
    assert each.answer is not None, f"{each.path} is not described."
    return each.answer


def _operation(each: Operation) -> dict[str, Any]:
    made: dict[str, Any] = {
        "tags": [each.tag],
        "summary": each.summary,
        "description": each.about or OPERATIONS[f"{each.method.upper()} {path_of(each)}"],
        "operationId": "_".join([each.method, *re.findall(r"\w+", path_of(each))]),
        "parameters": list(_parameters(each)),
        "responses": {str(each.status): _answer(each), **_problems(each)},
        "security": [] if each.is_open else [{"key": []}],
    }
    if each.body:
        examples = {name: {"value": example} for name, example in each.examples.items()}
        content = {"schema": _ref(each.body), "examples": examples}
        made["requestBody"] = {"required": not each.may_lack_body, "content": {"application/json": content}}
    if each.form:
        form = each.form.model_json_schema()
        # What is left out of a form is not null.
        form["properties"] = {name: _without_null(kind) for name, kind in form["properties"].items()}
        form["properties"]["file"] = {"type": "string", "format": "binary"}
        form["required"].append("file")
        made["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": form}}}
    return made


#: Of each webhook, by the Standard Webhooks rules.
WEBHOOK_HEADERS: Mapping[str, str] = {
    "webhook-id": "The event's id: the same on every try.",
    "webhook-timestamp": "When this try was made, in unix seconds.",
    "webhook-signature": "HMAC-SHA256 of id, timestamp and body by the app's secret; two while that is rotated.",
}


def _webhook(webhook: Webhook) -> dict[str, Any]:
    """What a receiver gets. It has no key: the signature stands for one."""
    properties = {
        "id": {"type": "string"},
        "object": {"const": "event"},
        "created_at": {"type": "integer", "description": "When it happened, in unix seconds."},
        "type": {"const": webhook.event},
        "data": _ref(webhook.data),
    }
    schema = {"type": "object", "required": list(properties), "properties": properties}
    return {
        "tags": ["webhooks"],
        "summary": webhook.event,
        "description": webhook.about,
        "operationId": webhook.event.replace(".", "_"),
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": about, "schema": {"type": "string"}}
            for name, about in WEBHOOK_HEADERS.items()
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {"2XX": {"description": "Accepted. After any other answer it is sent again, for three days."}},
        "security": [],
    }


def _parameters(each: Operation) -> Iterator[dict[str, Any]]:
    if "{" in each.path:
        text, pattern = each.id or IDS[each.path.split("/")[2]]
        kind = {"type": "string", "pattern": pattern}
        yield {"name": "id", "in": "path", "required": True, "description": text, "schema": kind}
    if each.query:
        schema = each.query.model_json_schema(ref_template=REF)
        for name, kind in schema["properties"].items():
            described = kind.pop("description", "")
            yield {"name": name, "in": "query", "description": described, "schema": _without_null(kind)}
    if each.makes:
        about = (
            f"The same key with the same body to the same path makes one {each.makes} for 24 hours. Printable ASCII."
        )
        yield {"name": "Idempotency-Key", "in": "header", "description": about, "schema": IDEMPOTENCY_KEY}
    if each.prefers_wait:
        text = "`wait=n`: hold on for n seconds at most, where the answer is waited for."
        yield {"name": "Prefer", "in": "header", "description": text, "schema": {"type": "string"}}


def _without_null(kind: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema without null: a query string leaves a parameter out instead."""
    kinds = [each for each in kind.pop("anyOf", []) if each != {"type": "null"}]
    if kind.get("default", ...) is None:
        del kind["default"]
    return {**kind, **kinds[0]} if kinds else kind


def _answer(each: Operation) -> dict[str, Any]:
    schema = _ref(_answer_of(each)) if each.media == JSON else {"type": "string", "format": "binary"}
    content: dict[str, Any] = {each.media: {"schema": schema}}
    if each.events:
        content["text/event-stream"] = {"schema": EVENT, "example": each.events}
    is_about_a_job = each.path.startswith(("/v1/jobs/", "/v1/responses/"))
    of_other: tuple[str, ...] = (REPLAYED,) if each.makes else ()
    more = OF_A_SUBMIT if each.makes == "job" else OF_A_JOB if is_about_a_job else of_other
    return {"description": "As asked.", "headers": _headers(*more), "content": content}


def _problems(each: Operation) -> dict[str, Any]:
    if each.is_open:
        if each.answer is not Readiness:
            return {}
        content = {"application/json": {"schema": _ref(Readiness)}}
        return {"503": {"description": "Not now; `failures` says why.", "content": content}}
    return {str(status): _problem(REFUSALS[status]) for status in sorted({*each.refusals, *ALWAYS})}


def _problem(refusal: ErrorStatus) -> dict[str, Any]:
    error = {"message": refusal.message, "type": refusal.type, "param": refusal.param, "code": refusal.code}
    content = {"schema": _ref(ProblemBody), "example": {"error": {**error, **refusal.more}}}
    return {
        "description": refusal.description,
        "headers": _headers(*refusal.headers),
        "content": {"application/json": content},
    }


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*EVERYWHERE, *names)}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}
