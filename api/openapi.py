"""The API as an OpenAPI document, made from the models that check requests and shape answers."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from api.schemas.health import Health, Readiness
from api.schemas.jobs import AcceptedBody, JobBody, JobList, JobRequest, JobsQuery, QueueList, WaitQuery
from api.schemas.models import ModelBody, ModelList
from api.schemas.problems import ProblemBody
from api.schemas.response_body import ResponseBody
from api.schemas.responses import ResponseRequest

REF = "#/components/schemas/{model}"

ABOUT = """\
Submit a prompt, get its place in a queue at once and its answer when it is done.

`/v1/jobs` is Headrace's own API; `/v1/responses` and `/v1/models` are OpenAI's, for its unchanged SDK. Both see the
same jobs. Press **Authorize** and paste an API key (`headrace keys create APP` makes one) to try a call from here.
"""

PROMPT = {"prompt": "Why is the sky blue?", "lane": "high", "max_tokens": 64}
INPUT = {"input": "Why is the sky blue?", "background": True, "max_output_tokens": 64}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    tag: str
    summary: str
    answer: type[BaseModel]
    status: int = 200
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    example: Mapping[str, Any] | None = None
    refusals: tuple[int, ...] = ()
    is_open: bool = False


OPERATIONS = (
    Operation(
        *("post", "/v1/jobs", "jobs", "Submit a prompt", AcceptedBody, 202),
        body=JobRequest,
        example=PROMPT,
        refusals=(400, 404, 413, 422, 429),
    ),
    Operation("get", "/v1/jobs", "jobs", "List your jobs, newest first", JobList, query=JobsQuery, refusals=(400,)),
    Operation(
        *("get", "/v1/jobs/{id}", "jobs", "Read a job, or wait for its end", JobBody),
        query=WaitQuery,
        refusals=(400, 404),
    ),
    Operation("post", "/v1/jobs/{id}/cancel", "jobs", "Cancel a job", JobBody, refusals=(404,)),
    Operation("get", "/v1/queues", "queues", "See how full the queues are", QueueList),
    Operation(
        *("post", "/v1/responses", "OpenAI", "Create a response in the background", ResponseBody),
        body=ResponseRequest,
        example=INPUT,
        refusals=(400, 404, 413, 422, 429),
    ),
    Operation(
        *("get", "/v1/responses/{id}", "OpenAI", "Retrieve a response, or wait for its end", ResponseBody),
        query=WaitQuery,
        refusals=(400, 404),
    ),
    Operation("post", "/v1/responses/{id}/cancel", "OpenAI", "Cancel a response", ResponseBody, refusals=(404,)),
    Operation("get", "/v1/models", "OpenAI", "List the models", ModelList),
    Operation("get", "/v1/models/{id}", "OpenAI", "Read a model", ModelBody, refusals=(404,)),
    Operation("get", "/healthz", "health", "Is the process alive?", Health, is_open=True),
    Operation("get", "/readyz", "health", "Can it serve?", Readiness, is_open=True),
)

REFUSALS: Mapping[int, str] = {
    400: "The request cannot be served as it is; `param` names the field.",
    401: "No valid API key.",
    404: "No such thing, or another app's.",
    413: "The body is too large.",
    422: "The Idempotency-Key was used with another body.",
    429: "The queue is full; `Retry-After` says when to come back.",
    503: "A part of Headrace is down; nothing was lost.",
}


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
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


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
        "responses": {str(each.status): _response("As asked.", each.answer), **_problems(each)},
        "security": [] if each.is_open else [{"key": []}],
    }
    if each.body:
        content = {"schema": _ref(each.body), "example": each.example}
        made["requestBody"] = {"required": True, "content": {"application/json": content}}
    return made


def _parameters(each: Operation) -> Iterator[dict[str, Any]]:
    if "{id}" in each.path:
        yield {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    if each.query:
        schema = each.query.model_json_schema(ref_template=REF)
        for name, kind in schema["properties"].items():
            yield {"name": name, "in": "query", "description": kind.pop("description", ""), "schema": kind}
    if each.body:
        text = "The same key with the same body makes one job, however often it is sent, for 24 hours."
        yield {"name": "Idempotency-Key", "in": "header", "description": text, "schema": {"type": "string"}}


def _problems(each: Operation) -> dict[str, Any]:
    if each.is_open:
        return {"503": _response("Not now; `failures` says why.", each.answer)} if each.answer is Readiness else {}
    return {str(status): _response(REFUSALS[status], ProblemBody) for status in sorted({*each.refusals, 401, 503})}


def _response(description: str, model: type[BaseModel]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref(model)}}}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}
