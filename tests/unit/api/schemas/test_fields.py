"""JSON schemas in requests: what is none by any draft is refused at the door, with the place of its fault."""

from typing import Any

import pytest

from api.schemas.body import validated
from api.schemas.chat import ChatRequest
from api.schemas.jobs import JobRequest
from api.schemas.response_request import ResponseRequest
from headrace.errors import InvalidRequest

TURNS = {"messages": [{"role": "user", "content": "Hi"}]}


def chat_tool(schema: Any) -> Any:
    return ChatRequest, {**TURNS, "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}


def chat_format(schema: Any) -> Any:
    return ChatRequest, {**TURNS, "response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}


def job_format(schema: Any) -> Any:
    _, body = chat_format(schema)
    return JobRequest, {"prompt": "Hi", "response_format": body["response_format"]}


def response_tool(schema: Any) -> Any:
    return ResponseRequest, {"input": "Hi", "tools": [{"type": "function", "name": "f", "parameters": schema}]}


def response_format(schema: Any) -> Any:
    return ResponseRequest, {"input": "Hi", "text": {"format": {"type": "json_schema", "name": "a", "schema": schema}}}


PLACES = {
    "tools.0.function.parameters": chat_tool,
    "response_format.json_schema.schema": chat_format,
    "tools.0.parameters": response_tool,
    "text.format.schema": response_format,
}


@pytest.mark.parametrize("param", PLACES)
def test_what_is_no_schema_is_refused_with_its_place(param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        validated(*PLACES[param]({"type": "object", "properties": {"city": {"type": "strin"}}}))
    assert refused.value.param == param
    assert (
        str(refused.value)
        == f"Invalid '{param}': it is no JSON schema: at /properties/city/type, \"strin\" is no type."
    )


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"type": "objekt"}, 'at /type, "objekt" is no type'),
        ({"properties": []}, 'at /properties, [] is not of type "object"'),
        ({"items": {"minLength": -1}}, "at /items/minLength, -1 is less than the minimum of 0"),
        ({"required": True}, 'at /required, true is not of type "array"'),
        ({"$schema": "http://127.0.0.1:1/schema", "type": "objekt"}, 'at /type, "objekt" is no type'),
    ],
    ids=["type", "properties", "nested", "required", "own-schema"],
)
def test_the_fault_is_named(schema: Any, fault: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        validated(*job_format(schema))
    assert fault in str(refused.value)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": ["string", "null"], "x-order": 7},
        {"items": [{"type": "string"}]},
        {"minimum": 1, "exclusiveMinimum": True},
        {"pattern": "["},
        {"$ref": "https://example.com/elsewhere"},
    ],
    ids=["empty", "unknown-keyword", "older-draft", "draft-4", "pattern", "elsewhere"],
)
@pytest.mark.parametrize("place", [*PLACES.values(), job_format], ids=lambda place: place.__name__)
def test_a_schema_by_any_draft_is_taken(place: Any, schema: Any) -> None:
    assert validated(*place(schema)).to_draft()
