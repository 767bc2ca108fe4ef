"""The API as an OpenAPI document, made from the models that check requests and shape answers."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel, Field
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from api.reference.operations import ALWAYS, OPERATIONS, REFUSALS, ErrorStatus, Operation
from api.schemas.fields import Answer
from api.schemas.health import Readiness

REF = "#/components/schemas/{model}"

ABOUT = """\
Submit a prompt, get its place in a queue at once and its answer when it is done.

`/v1/jobs` is Headrace's own API; `/v1/responses`, `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings` and
`/v1/models` are OpenAI's, for its unchanged SDK. All see the same jobs. Press **Authorize** and paste an API key
(`headrace keys create APP` makes one) to try a call from here.
"""

HEADERS: Mapping[str, str] = {
    "x-request-id": "Names this request, in our logs too.",
    "openai-processing-ms": "Milliseconds that the request took here.",
    "x-job-id": "Names the job, whatever the body's shape.",
    "x-headrace-cost-usd": "What the job cost its app, in USD; only once it has ended.",
    "x-headrace-cache": "hit: given an identical job's answer; shared: that of one under way; semantic: that to the "
    "same question in other words; miss: there was none.",
    "x-headrace-confined-until": "Of a confined app: until when its jobs of this model's pool run one at a time.",
    "Idempotent-Replayed": "`true` when the Idempotency-Key had made this job before.",
    "Retry-After": "Whole seconds after which to try again, 120 at most.",
    "x-should-retry": "`false` where trying again would only do harm; OpenAI's SDK heeds it.",
    "WWW-Authenticate": "The scheme: `Bearer`.",
    "x-ratelimit-limit-requests": "Of an app with limits: requests a minute. `-remaining-` and `-reset-` go with it, "
    "and the same three for `tokens`; where the rate of calls refused it, for `calls`.",
}
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
OF_A_SUBMIT = (*OF_A_JOB, "x-headrace-confined-until", "Idempotent-Replayed", "x-ratelimit-limit-requests")


@cache
def document() -> dict[str, Any]:
    """The whole document, OpenAPI 3.1."""
    paths: dict[str, dict[str, Any]] = {}
    for each in OPERATIONS:
        paths.setdefault(each.path, {})[each.method] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headrace", "version": version("headrace"), "description": ABOUT},
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


class Problem(Answer):
    """One error. `param` is the dotted path of the field at fault. The rest is there only where it is told of."""

    message: str
    type: str
    param: str | None
    code: str
    reason: str = Field("", description="With 429: which bound was met.")
    queue: str = Field("", description="queue_full: the job's own queue.")
    depth: int = Field(0, description="queue_full: what waits in it, in the unit of the cap.")
    cap: int = Field(0, description="queue_full: the bound.")
    unit: Literal["jobs", "tokens"] = Field(
        "jobs", description="queue_full: of depth and cap; tokens for the reasons tokens, token_share and wait."
    )
    expected_wait_s: float | None = Field(
        None, description="queue_full: until a job at its end would start; null while it is unknown."
    )


class ProblemBody(Answer):
    """An answer that is an error."""

    error: Problem


def _schemas() -> dict[str, Any]:
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(ProblemBody, "serialization")]
    for each in OPERATIONS:
        models.append((each.answer, "serialization"))
        if each.body:
            models.append((each.body, "validation"))
    _, definitions = models_json_schema(list(dict.fromkeys(models)), ref_template=REF)
    schemas: dict[str, Any] = definitions["$defs"]
    return schemas


def _operation(each: Operation) -> dict[str, Any]:
    made: dict[str, Any] = {
        "tags": [each.tag],
        "summary": each.summary,
        "operationId": "_".join([each.method, *re.findall(r"\w+", each.path)]),
        "parameters": list(_parameters(each)),
        "responses": {str(each.status): _answer(each), **_problems(each)},
        "security": [] if each.is_open else [{"key": []}],
    }
    if each.body:
        examples = {name: {"value": example} for name, example in each.examples.items()}
        content = {"schema": _ref(each.body), "examples": examples}
        made["requestBody"] = {"required": True, "content": {"application/json": content}}
    return made


def _parameters(each: Operation) -> Iterator[dict[str, Any]]:
    if "{id}" in each.path:
        text, pattern = IDS[each.path.split("/")[2]]
        kind = {"type": "string", "pattern": pattern}
        yield {"name": "id", "in": "path", "required": True, "description": text, "schema": kind}
    if each.query:
        schema = each.query.model_json_schema(ref_template=REF)
        for name, kind in schema["properties"].items():
            described = kind.pop("description", "")
            yield {"name": name, "in": "query", "description": described, "schema": _without_null(kind)}
    if each.makes_job:
        text = "The same key with the same body to the same path makes one job, for 24 hours. Printable ASCII."
        yield {"name": "Idempotency-Key", "in": "header", "description": text, "schema": IDEMPOTENCY_KEY}
    if each.prefers_wait:
        text = "`wait=n`: hold on for n seconds at most, where the answer is waited for."
        yield {"name": "Prefer", "in": "header", "description": text, "schema": {"type": "string"}}


def _without_null(kind: dict[str, Any]) -> dict[str, Any]:
    """The schema without null: a query string leaves a parameter out instead."""
    kinds = [each for each in kind.pop("anyOf", []) if each != {"type": "null"}]
    if kind.get("default", ...) is None:
        del kind["default"]
    return {**kind, **kinds[0]} if kinds else kind


def _answer(each: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": _ref(each.answer)}}
    if each.events:
        content["text/event-stream"] = {"schema": EVENT, "example": each.events}
    is_about_a_job = each.path.startswith(("/v1/jobs/", "/v1/responses/"))
    more = OF_A_SUBMIT if each.makes_job else OF_A_JOB if is_about_a_job else ()
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
