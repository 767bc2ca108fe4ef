"""Function tools in requests: each part arrives, or is refused by its name."""

from typing import Any

import pytest
from openai.types.chat import (
    ChatCompletionFunctionToolParam,
    ChatCompletionMessageFunctionToolCallParam,
    ChatCompletionToolMessageParam,
)
from openai.types.chat.chat_completion_message_function_tool_call import ChatCompletionMessageFunctionToolCall
from openai.types.shared_params import FunctionDefinition as TheirDefinition

from api.door.drafts import Draft
from api.schemas.body import validated
from api.schemas.chat import ChatRequest, ChatTurn
from api.schemas.jobs import JobRequest
from api.schemas.tools import TOOLS_LIMIT, CalledFunction, CallRequest, FunctionDefinition, FunctionTool, ToolCallBody
from headrace.domain.prompts import Message
from headrace.domain.prompts.tools import ToolCall, Tools
from headrace.errors import InvalidRequest

WEATHER = {"name": "weather", "description": "Of a city.", "parameters": {"type": "object"}, "strict": True}
TOOL = {"type": "function", "function": WEATHER}
TIME = {"type": "function", "function": {"name": "time", "description": None}}
NAMED = {"type": "function", "function": {"name": "weather"}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
ASKED: dict[str, Any] = {"role": "user", "content": "Hi"}
CALLED: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [CALL]}
OUTPUT: dict[str, Any] = {"role": "tool", "tool_call_id": "call_1", "content": "rainy"}

both = pytest.mark.parametrize("schema", [ChatRequest, JobRequest])


def draft_of(schema: Any, **changes: Any) -> Draft:
    draft: Draft = validated(schema, {"messages": [ASKED], **changes}).to_draft()
    return draft


def test_each_field_of_the_sdk_is_known() -> None:
    assert set(ChatCompletionFunctionToolParam.__annotations__) <= set(FunctionTool.model_fields)
    assert set(TheirDefinition.__annotations__) == set(FunctionDefinition.model_fields)
    assert set(ChatCompletionMessageFunctionToolCallParam.__annotations__) <= set(CallRequest.model_fields)
    assert set(ChatCompletionToolMessageParam.__annotations__) <= set(ChatTurn.model_fields)
    assert set(CalledFunction.model_fields) == {"name", "arguments", "parsed_arguments"}


@both
@pytest.mark.parametrize(
    ("changes", "tools"),
    [
        ({}, None),
        ({"tools": None, "tool_choice": None, "parallel_tool_calls": None}, None),
        ({"tools": [], "tool_choice": "auto"}, None),
        ({"tools": [TOOL, TIME]}, Tools((WEATHER, {"name": "time"}))),
        ({"tools": [TOOL], "tool_choice": "none"}, Tools((WEATHER,), "none")),
        ({"tools": [TOOL], "tool_choice": "required"}, Tools((WEATHER,), "required")),
        ({"tools": [TOOL], "tool_choice": NAMED}, Tools((WEATHER,), "function", "weather")),
        ({"tools": [TOOL], "parallel_tool_calls": False}, Tools((WEATHER,), parallel=False)),
    ],
)
def test_tools_arrive_as_they_were_given(schema: Any, changes: dict[str, Any], tools: Tools | None) -> None:
    assert draft_of(schema, **changes).tools == tools


@both
@pytest.mark.parametrize("left_out", [(), ("content",)])
def test_turns_with_calls_and_their_outputs_arrive(schema: Any, left_out: tuple[str, ...]) -> None:
    called = {name: value for name, value in CALLED.items() if name not in left_out}
    assert draft_of(schema, messages=[ASKED, called, OUTPUT]).messages == (
        Message("user", "Hi"),
        Message("assistant", "", tool_calls=(ToolCall("call_1", "weather", '{"city": "Paris"}'),)),
        Message("tool", "rainy", tool_call_id="call_1"),
    )


@pytest.mark.parametrize("schema", [ChatRequest])
def test_an_answer_s_calls_can_be_sent_back_as_they_came(schema: Any) -> None:
    theirs = ChatCompletionMessageFunctionToolCall.model_validate(CALL).model_dump()
    ours = ToolCallBody.each_of([ToolCall("call_1", "weather", '{"city": "Paris"}')])
    assert ours is not None
    for call in (theirs, ours[0].model_dump(), {**CALL, "index": 0}):
        assert draft_of(schema, messages=[ASKED, {**CALLED, "tool_calls": [call]}]).messages[1].tool_calls


@both
@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.0.type"),
        ({"tools": [TOOL, {"type": "web_search"}]}, "tools.1.type"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]}, "tools.0.function.parameters"),
        ({"tools": [{"type": "function", "function": {"name": "f", "x": 1}}]}, "tools.0.function.x"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tools": [TOOL] * (TOOLS_LIMIT + 1)}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"tools": [TIME], "tool_choice": NAMED}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {}}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice"),
        ({"tools": [TOOL], "parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"messages": [OUTPUT]}, "messages.0.tool_call_id"),
        ({"messages": [ASKED, CALLED, {**OUTPUT, "tool_call_id": "call_2"}]}, "messages.2.tool_call_id"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
        ({"messages": [{**ASKED, "tool_call_id": "call_1"}]}, "messages.0.tool_call_id"),
        ({"messages": [{**ASKED, "tool_calls": [CALL]}]}, "messages.0.tool_calls"),
        ({"messages": [{**CALLED, "tool_calls": [{**CALL, "type": "custom"}]}]}, "messages.0.tool_calls.0.type"),
        ({"messages": [{**CALLED, "tool_calls": [{**CALL, "id": ""}]}]}, "messages.0.tool_calls.0.id"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_bad_tool_is_named(schema: Any, changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        draft_of(schema, **changes)
    assert raised.value.param == param


@both
@pytest.mark.parametrize(
    ("changes", "type_"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "custom"),
        ({"tools": [{"type": "web_search"}]}, "web_search"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "allowed_tools"),
    ],
)
def test_what_is_not_supported_is_refused_by_its_type(schema: Any, changes: dict[str, Any], type_: str) -> None:
    with pytest.raises(InvalidRequest, match=f"Unsupported type '{type_}'") as raised:
        draft_of(schema, **changes)
    assert raised.value.code == "unsupported_parameter"


def test_a_job_of_inputs_has_no_tools() -> None:
    with pytest.raises(InvalidRequest, match="embedded, not answered") as raised:
        validated(JobRequest, {"input": "Hi", "tools": [TOOL]})
    assert raised.value.param == "tools"


@pytest.mark.parametrize("content", [{}, {"content": None}])
def test_a_turn_of_a_job_has_text_or_calls(content: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as raised:
        validated(JobRequest, {"messages": [ASKED, {"role": "assistant", **content}]})
    assert raised.value.param == "messages.1.content"
    called = {"role": "assistant", "tool_calls": [CALL], **content}
    assert draft_of(JobRequest, messages=[ASKED, called]).messages[1].content == ""
