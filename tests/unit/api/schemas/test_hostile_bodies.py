"""Whatever a body says, it becomes a draft or an error that names what is wrong: never another exception."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from api.schemas.body import parse_object, validated
from api.schemas.chat.request import ChatRequest
from api.schemas.completions.request import CompletionRequest
from api.schemas.embeddings import EmbeddingRequest
from api.schemas.job_request import JobRequest
from api.schemas.responses import ResponseRequest
from api.schemas.tokens import DetokenizeRequest, TokenizeRequest
from headrace.errors import HeadraceError

#: A body of each call that is right.
PLAIN: dict[type[BaseModel], dict[str, Any]] = {
    JobRequest: {"prompt": "Hi"},
    ChatRequest: {"messages": [{"role": "user", "content": "Hi"}]},
    ResponseRequest: {"input": "Hi"},
    CompletionRequest: {"prompt": "Hi"},
    EmbeddingRequest: {"input": "Hi"},
    TokenizeRequest: {"prompt": "Hi"},
    DetokenizeRequest: {"tokens": [1]},
}
#: Words that mean something somewhere: types, roles, choices.
WORDS = (
    *("user", "assistant", "system", "tool", "developer", "function", "text", "input_text", "output_text", "message"),
    *(
        "function_call",
        "function_call_output",
        "item_reference",
        "reasoning",
        "json_schema",
        "json_object",
        "image_url",
    ),
    *(
        "auto",
        "none",
        "required",
        "high",
        "batch",
        "never",
        "priority",
        "flex",
        "type",
        "role",
        "content",
        "name",
        "id",
    ),
    *(
        "parameters",
        "schema",
        "arguments",
        "call_id",
        "tool_calls",
        "tool_call_id",
        "strict",
        "effort",
        "include_usage",
    ),
)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.integers(-3, 300)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=12) | st.sampled_from(WORDS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=12,
)


def mutated(draw: st.DrawFn, schema: type[BaseModel]) -> bytes:
    """A right body with some fields changed: by their own names, and sometimes inside."""
    body = json.loads(json.dumps(PLAIN[schema]))
    names = st.sampled_from([*schema.model_fields, "unknown"])
    body |= draw(st.dictionaries(names, VALUES, max_size=4))
    if draw(st.booleans()) and isinstance(turns := body.get("messages", body.get("input")), list):
        turns.append(draw(st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=5)))
    return json.dumps(body).encode()


@pytest.mark.parametrize("schema", list(PLAIN))
def test_a_hostile_body_is_refused_by_name_or_understood(schema: type[BaseModel]) -> None:
    seen = {"drafts": 0, "refusals": 0}

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data: st.DataObject) -> None:
        raw = mutated(data.draw, schema)
        try:
            made = validated(schema, parse_object(raw))
            if hasattr(made, "to_draft"):
                made.to_draft()
            seen["drafts"] += 1
        except HeadraceError as error:
            seen["refusals"] += bool(str(error))

    check()
    assert min(seen.values()) > 0, seen
