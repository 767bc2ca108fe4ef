"""Function tools through the unchanged SDK: calls, streams of calls, and the outputs that are sent back."""

import json
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from headrace.domain.ids import parse_id
from tests.web import ApiClient

ANSWER = "Because of Rayleigh scattering."
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "time", "description": "Now."}},
]
MADE = [("call_1", "weather", {"city": "Paris"}), ("call_2", "time", {})]
ASKED = {"role": "user", "content": "What is the weather in Paris?"}


def create(sdk: OpenAI, *turns: Any, **arguments: Any) -> Any:
    asked = {"messages": [ASKED, *turns], "model": sdk.models.list().data[0].id, "tools": TOOLS}
    return sdk.chat.completions.create(**{**asked, **arguments})


def made(calls: Any) -> list[tuple[str, str, Any]]:
    return [(call.id, call.function.name, json.loads(call.function.arguments)) for call in calls]


@pytest.mark.usefixtures("answering")
def test_calls_come_back_and_their_outputs_are_answered(sdk: OpenAI) -> None:
    [choice] = create(sdk, tool_choice="required", parallel_tool_calls=True).choices
    assert (choice.message.content, choice.finish_reason) == (None, "tool_calls")
    assert made(choice.message.tool_calls) == MADE
    outputs = [{"role": "tool", "tool_call_id": call.id, "content": "rainy"} for call in choice.message.tool_calls]
    [choice] = create(sdk, choice.message, *outputs).choices
    assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == (ANSWER, None, "stop")


@pytest.mark.usefixtures("answering")
def test_a_call_by_name_ends_as_with_openai(sdk: OpenAI) -> None:
    [choice] = create(sdk, tool_choice={"type": "function", "function": {"name": "weather"}}).choices
    assert (made(choice.message.tool_calls), choice.finish_reason) == (MADE, "stop")


@pytest.mark.usefixtures("answering")
def test_a_stream_tells_calls_piece_by_piece(sdk: OpenAI) -> None:
    chunks = list(create(sdk, stream=True))
    pieces = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    assert [(call.index, call.id, call.function.name) for call in pieces if call.id] == [
        (0, "call_1", "weather"),
        (1, "call_2", "time"),
    ]
    told = ["".join(call.function.arguments or "" for call in pieces if call.index == index) for index in (0, 1)]
    assert [json.loads(arguments) for arguments in told] == [{"city": "Paris"}, {}]
    assert len(pieces) > 2
    assert [each.finish_reason for chunk in chunks for each in chunk.choices if each.finish_reason] == ["tool_calls"]


@pytest.mark.usefixtures("answering")
def test_the_sdks_own_helper_collects_streamed_calls(sdk: OpenAI) -> None:
    class Weather(BaseModel):
        city: str

    tool = openai.pydantic_function_tool(Weather, name="weather")
    asked: Any = {"messages": [ASKED], "model": sdk.models.list().data[0].id, "tools": [tool, TOOLS[1]]}
    with sdk.chat.completions.stream(**asked) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    assert made(message.tool_calls) == MADE
    assert message.tool_calls[0].function.parsed_arguments == Weather(city="Paris")


def test_a_job_takes_and_gives_tools(client: ApiClient, finish: Any) -> None:
    body = {"messages": [ASKED], "tools": TOOLS, "tool_choice": "required"}
    accepted: Any = client.post("/v1/jobs", json=body)
    assert accepted.status_code == 202, accepted.text
    plain: Any = client.post("/v1/jobs", json={"messages": [ASKED]})
    jobs: Any = [client.get(f"/v1/jobs/{each.json['id']}").json for each in (plain, accepted)]
    assert [job["tool_calls"] for job in jobs] == [None, None]
    finish(parse_id(accepted.json["id"]))
    job: Any = client.get(f"/v1/jobs/{accepted.json['id']}").json
    assert (job["status"], job["text"], job["finish_reason"]) == ("succeeded", "", "tool_calls")
    called = [(call["id"], call["function"]) for call in job["tool_calls"]]
    assert [(each, call["name"], json.loads(call["arguments"])) for each, call in called] == MADE


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools.0.type"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"messages": [ASKED, {"role": "tool", "tool_call_id": "call_1", "content": "x"}]}, "messages.1.tool_call_id"),
    ],
)
def test_what_cannot_be_is_refused_by_name(sdk: OpenAI, arguments: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        create(sdk, **arguments)
    assert raised.value.param == param
