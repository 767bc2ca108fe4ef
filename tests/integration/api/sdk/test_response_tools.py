"""Function tools of responses through the unchanged SDK: calls, their events, outputs, and items by their ids."""

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import OpenAI

from headrace.domain.ids import parse_id

ANSWER = "Because of Rayleigh scattering."
TOOLS: list[Any] = [
    {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False},
    {"type": "function", "name": "time", "description": "Now.", "parameters": None, "strict": None},
]
MADE = [("call_1", "weather", {"city": "Paris"}), ("call_2", "time", {})]
QUESTION = "What is the weather in Paris?"


def made(items: Any) -> list[tuple[str, str, Any]]:
    return [(item.call_id, item.name, json.loads(item.arguments)) for item in items if item.type == "function_call"]


def outputs(items: Any) -> list[Any]:
    calls = [item for item in items if item.type == "function_call"]
    return [{"type": "function_call_output", "call_id": call.call_id, "output": "rainy"} for call in calls]


@pytest.fixture
def first(sdk: OpenAI, answering: None) -> Any:
    return sdk.responses.create(input=QUESTION, tools=TOOLS, instructions="Be brief.")


def asked(sdk: OpenAI, response: Any) -> list[str]:
    """What the model was given, as types of items."""
    items = sdk.responses.input_items.list(response.id, order="asc").data
    return [f"{item.type} {getattr(item, 'role', '')}".strip() for item in items]


CONVERSATION = [
    *("message system", "message user", "function_call", "function_call"),
    *("function_call_output", "function_call_output"),
]


def test_calls_are_items_and_their_outputs_are_answered(sdk: OpenAI, first: Any) -> None:
    assert [item.type for item in first.output] == ["function_call", "function_call"]
    assert (made(first.output), first.output_text, first.status) == (MADE, "", "completed")
    assert [tool.name for tool in first.tools] == ["weather", "time"]
    assert (first.tool_choice, first.parallel_tool_calls) == ("auto", True)
    whole: list[Any] = [{"role": "user", "content": QUESTION}, *first.output, *outputs(first.output)]
    second = sdk.responses.create(input=whole, tools=TOOLS, instructions="Be brief.")
    assert second.output_text == ANSWER
    assert asked(sdk, second) == CONVERSATION


def test_outputs_follow_the_response_that_made_the_calls(sdk: OpenAI, first: Any) -> None:
    second = sdk.responses.create(input=outputs(first.output), tools=TOOLS, previous_response_id=first.id)
    assert second.output_text == ANSWER
    assert asked(sdk, second) == CONVERSATION


def test_calls_are_sent_back_by_their_ids(sdk: OpenAI, first: Any) -> None:
    references: list[Any] = [{"type": "item_reference", "id": item.id} for item in first.output]
    second = sdk.responses.create(input=[*references, *outputs(first.output)], tools=TOOLS)
    assert asked(sdk, second) == CONVERSATION[2:]
    items: Any = sdk.responses.input_items.list(second.id, order="asc").data
    again: list[Any] = [{"type": "item_reference", "id": item.id} for item in items]
    third = sdk.responses.create(input=again, tools=TOOLS)
    assert asked(sdk, third) == CONVERSATION[2:]
    assert made(sdk.responses.input_items.list(third.id, order="asc").data) == MADE


@pytest.mark.usefixtures("answering")
def test_a_stream_tells_each_call(sdk: OpenAI) -> None:
    with sdk.responses.stream(input=QUESTION, tools=TOOLS, model=sdk.models.list().data[0].id) as stream:
        events: list[Any] = list(stream)
        final = stream.get_final_response()
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert [(event.name, json.loads(event.arguments)) for event in done] == [each[1:] for each in MADE]
    assert made(final.output) == MADE
    assert [item.status for item in final.output] == ["completed"] * 2


@pytest.mark.usefixtures("answering")
def test_a_call_by_name_is_echoed(sdk: OpenAI) -> None:
    choice: Any = {"type": "function", "name": "weather"}
    done = sdk.responses.create(input=QUESTION, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
    assert (made(done.output), done.parallel_tool_calls) == (MADE, False)
    assert done.tool_choice.model_dump(exclude_none=True) == choice  # type: ignore[union-attr]


def test_the_output_of_a_call_that_was_not_made_is_not_found(
    sdk: OpenAI, make_sdk: Callable[..., OpenAI], make_key: Callable[[str], str], first: Any
) -> None:
    other, given = make_sdk(make_key("other")), outputs(first.output)
    digits = parse_id(first.id).hex
    for client, arguments, param in (
        (sdk, {"input": given}, "input"),
        (other, {"input": given}, "input"),
        (other, {"input": given, "previous_response_id": first.id}, "previous_response_id"),
        (other, {"input": [{"type": "item_reference", "id": first.output[0].id}, *given]}, "input.0.id"),
        (sdk, {"input": [{"type": "item_reference", "id": f"fc_{digits}_2"}]}, "input.0.id"),
        (sdk, {"input": [{"type": "item_reference", "id": f"fc_{digits}"}]}, "input.0.id"),
        (sdk, {"input": [{"type": "item_reference", "id": f"fc_{digits}_0_0"}]}, "input.0.id"),
        (sdk, {"input": [{"type": "item_reference", "id": f"fco_{digits}_9"}]}, "input.0.id"),
    ):
        with pytest.raises(openai.NotFoundError) as raised:
            client.responses.create(**arguments)  # type: ignore[call-overload]
        assert (raised.value.code, raised.value.param) == ("not_found", param)


@pytest.mark.parametrize("tool", [{"type": "web_search"}, {"type": "custom", "name": "f"}, {"type": "mcp"}])
def test_other_tools_are_refused_by_their_types(sdk: OpenAI, tool: Any) -> None:
    with pytest.raises(openai.BadRequestError, match=f"Unsupported type '{tool['type']}'") as raised:
        sdk.responses.create(input=QUESTION, tools=[tool])
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", "tools.0.type")
