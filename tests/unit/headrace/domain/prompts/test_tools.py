"""Tools and their calls: stored and read again, told apart by the digest, and put together from pieces."""

import json
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.domain.prompts import Message, Sampling, has_calls, prompt_digest
from headrace.domain.prompts.tools import CallPlaces, ToolCall, ToolCallPiece, Tools, joined, rest_of

CALL = ToolCall("call_1", "weather", '{"city": "Paris"}')
OTHER = ToolCall("call_2", "time", "{}")
WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
TOOLS = Tools((WEATHER,))
CONVERSATION = (
    Message("user", "Hi"),
    Message("assistant", "", tool_calls=(CALL, OTHER)),
    Message("tool", "rainy", tool_call_id="call_1"),
)


@pytest.mark.parametrize("message", [*CONVERSATION, Message("user", "Hi", "ann")])
def test_a_message_is_read_as_it_was_written(message: Message) -> None:
    assert Message.of(json.loads(json.dumps(message.to_fields()))) == message


@pytest.mark.parametrize("tools", [TOOLS, replace(TOOLS, choice="function", name="weather", parallel=False)])
def test_tools_are_read_as_they_were_written(tools: Tools) -> None:
    assert Tools.of(json.loads(json.dumps(asdict(tools)))) == tools


def test_a_message_without_calls_has_the_fields_that_it_always_had() -> None:
    assert Message("user", "Hi").to_fields() == {"role": "user", "content": "Hi"}


def test_calls_and_outputs_make_a_conversation_one_with_calls() -> None:
    assert [has_calls([each]) for each in CONVERSATION] == [False, True, True]
    assert [each.has_content for each in (*CONVERSATION, Message("assistant", " "))] == [True, True, True, False]


def test_each_part_of_the_tools_makes_another_prompt() -> None:
    others = [
        None,
        TOOLS,
        replace(TOOLS, choice="none"),
        replace(TOOLS, choice="function", name="weather"),
        replace(TOOLS, parallel=False),
        Tools(({**WEATHER, "strict": True},)),
        Tools((WEATHER, {"name": "time"})),
    ]
    digests = [prompt_digest("m", CONVERSATION, Sampling(9, tools=tools)) for tools in others]
    assert len(set(digests)) == len(others)
    called = [(), (CALL,), (replace(CALL, arguments="{}"),), (replace(CALL, id="call_9"),)]
    turns = [prompt_digest("m", (Message("assistant", "", tool_calls=calls),), Sampling(9)) for calls in called]
    assert len(set(turns)) == len(called)


def test_a_prompt_without_tools_keeps_its_digest() -> None:
    """Poison prompts, and keys of the cache, were stored before there were tools."""
    digest = prompt_digest("m", (Message("user", "Hi"),), Sampling(9))
    assert digest.hex() == "1be39185f270237e8a10ae58b4b55a969d6519e44b09ff1af1af1a0d6b1fdd73"


def cut(calls: tuple[ToolCall, ...], at: list[int]) -> list[ToolCallPiece]:
    """The calls as pieces, whose arguments are cut at these places."""
    pieces = []
    for index, call in enumerate(calls):
        pieces.append(ToolCallPiece(index, call.id, call.name))
        places = sorted({0, len(call.arguments), *(place % (len(call.arguments) + 1) for place in at)})
        pieces += [ToolCallPiece(index, arguments=call.arguments[start:end]) for start, end in pairwise(places)]
    return pieces


@given(st.lists(st.integers(0, 40), max_size=5), st.integers(0, 12))
def test_what_was_told_and_the_rest_are_the_whole(at: list[int], told: int) -> None:
    calls = (CALL, OTHER)
    pieces = cut(calls, at)
    assert joined(pieces) == calls
    rest = rest_of(calls, joined(pieces[:told]))
    assert rest is not None
    assert joined([*pieces[:told], *rest]) == calls


@pytest.mark.parametrize(
    "told",
    [(CALL, OTHER, CALL), (replace(CALL, id="x"),), (replace(CALL, name="x"),), (replace(CALL, arguments="x"),)],
)
def test_another_beginning_has_no_rest(told: Any) -> None:
    assert rest_of((CALL, OTHER), told) is None


def test_calls_are_numbered_as_they_begin_whatever_an_engine_calls_them() -> None:
    places = CallPlaces()
    given = [(3, "a"), (3, None), (7, "b"), (3, "a"), (7, None)]
    assert [places.placed(ToolCallPiece(index, call_id)).index for index, call_id in given] == [0, 0, 1, 0, 1]


def test_two_calls_with_one_number_are_told_apart_by_their_ids() -> None:
    places = CallPlaces()
    given = [(0, "a"), (0, None), (0, "b"), (0, None)]
    assert [places.placed(ToolCallPiece(index, call_id)).index for index, call_id in given] == [0, 0, 1, 1]
