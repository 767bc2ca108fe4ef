"""OpenAI's request: each of its fields is honoured, refused by name, or on the short list of those not acted on."""

import re
from typing import Any, get_args

import pytest
from openai.types.responses import ResponseFunctionToolCall, ResponseReasoningItem
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from openai.types.shared import Reasoning
from openai.types.shared import ReasoningEffort as TheirEffort

from api.door.drafts import Continuation, ItemReference
from api.schemas.body import validated
from api.schemas.response_request import (
    ENCRYPTED,
    LOGPROBS,
    ReasoningOptions,
    ResponseQuery,
    ResponseRequest,
)
from headrace.domain.prompts import Message
from headrace.domain.prompts.tools import ToolCall, Tools
from headrace.domain.queues import Lane
from headrace.errors import InvalidRequest

LEAST: dict[str, Any] = {"input": "Hi", "background": True}
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": None, "description": "d"}


def draft_of(**changes: Any) -> Any:
    return validated(ResponseRequest, {**LEAST, **changes}).to_draft()


def test_each_field_of_the_sdk_is_known() -> None:
    theirs = set(ResponseCreateParamsBase.__annotations__)
    assert theirs <= set(ResponseRequest.model_fields) | set(ResponseRequest.UNSUPPORTED)
    assert set(Reasoning.model_fields) == set(ReasoningOptions.model_fields) | set(ReasoningOptions.UNSUPPORTED)


@pytest.mark.parametrize("name", sorted(ResponseRequest.UNSUPPORTED))
def test_what_is_not_supported_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        draft_of(**{name: {"some": "thing"}})
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", name)
    assert name in str(raised.value)
    assert re.search("(?i)leave it out|send", str(raised.value)), "it says what to do instead"


@pytest.mark.parametrize("nothing", [None, [], {}, False])
@pytest.mark.parametrize("name", sorted(ResponseRequest.UNSUPPORTED))
def test_asking_for_nothing_is_fine(name: str, nothing: Any) -> None:
    assert draft_of(**{name: nothing}).messages


@pytest.mark.parametrize("name", sorted(ReasoningOptions.UNSUPPORTED))
def test_what_is_thought_is_only_told_how_much_it_is_to_be(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"(?i)leave it out") as raised:
        draft_of(reasoning={"effort": "low", name: "auto"})
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", f"reasoning.{name}")
    assert draft_of(reasoning={"effort": "low", name: None}).reasoning_effort == "low"


@pytest.mark.parametrize("effort", get_args(get_args(TheirEffort)[0]))
def test_each_effort_of_the_sdk_arrives(effort: str) -> None:
    draft = draft_of(reasoning={"effort": effort})
    assert (draft.reasoning_effort, draft.spelling.effort) == (effort, "reasoning.effort")


@pytest.mark.parametrize("nothing", [None, {}, {"effort": None}])
def test_who_says_nothing_of_the_effort_leaves_it_to_the_model(nothing: Any) -> None:
    assert draft_of(reasoning=nothing).reasoning_effort is None


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"store": False}, "store"),
        ({"store": False, "background": False, "job": {"webhook": "https://example.com/"}}, "store"),
        ({"background_options": {"completion_window": "2h"}, "stream": True}, "background_options"),
        ({"include": [LOGPROBS, "file_search_call.results"]}, "include"),
    ],
)
def test_a_mode_we_have_not_is_refused_with_the_remedy(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        draft_of(**changes)
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", param)


@pytest.mark.parametrize(
    ("changes", "background", "stream"),
    [
        ({}, True, False),
        ({"stream": True}, True, True),
        ({"background": False}, False, False),
        ({"background": None, "stream": True}, False, True),
    ],
)
def test_the_caller_polls_waits_or_listens(changes: dict[str, Any], background: bool, stream: bool) -> None:
    draft = draft_of(**changes)
    assert (draft.background, draft.stream) == (background, stream)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input.0.content.0.type",
        ),
        ({"input": [{"type": "computer_call_output", "output": "x"}]}, "input.0.type"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input.0.call_id"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input.0.arguments"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image"}]}]},
            "input.0.output.0.type",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"type": "custom", "name": "f"}]}, "tools.0.type"),
        ({"tools": [{"type": "function"}]}, "tools.0.name"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "tools": []}}, "tool_choice"),
        ({"tools": [FUNCTION, FUNCTION]}, "tools"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"include": LOGPROBS}, "include"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"top_logprobs": 1, "include": [ENCRYPTED]}, "top_logprobs"),
        ({"top_logprobs": 21, "include": [LOGPROBS]}, "top_logprobs"),
        ({"reasoning": {"effort": "great"}}, "reasoning.effort"),
        ({"reasoning": {"unknown": 1}}, "reasoning.unknown"),
        ({"reasoning": "low"}, "reasoning"),
        ({"service_tier": "gold"}, "service_tier"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"background_options": {"continuation_id": "x"}}, "background_options.continuation_id"),
        (
            {"background_options": {"completion_window": "2h"}, "job": {"max_wait": 5}},
            "background_options.completion_window",
        ),
        (
            {"background_options": {"completion_window": "2h"}, "service_tier": "priority"},
            "background_options.completion_window",
        ),
        ({"background": False, "background_options": {"completion_window": "soonest"}}, "background_options"),
        ({"job": {"lane": "fast"}}, "job.lane"),
        ({"job": {"webhook": "ftp://x"}}, "job.webhook"),
        ({"job": {"unknown": 1}}, "job.unknown"),
        ({"job": 1}, "job"),
        ({"unknown": 1}, "unknown"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_bad_field_is_named(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        draft_of(**changes)
    assert raised.value.param == param


@pytest.mark.parametrize(
    ("changes", "lane", "max_wait_s"),
    [
        ({}, Lane.NORMAL, None),
        ({"service_tier": "priority"}, Lane.HIGH, None),
        ({"service_tier": "auto"}, Lane.NORMAL, None),
        ({"service_tier": "flex"}, Lane.LOW, None),
        ({"service_tier": "flex", "job": {"lane": "batch", "max_wait": 9}}, Lane.BATCH, 9),
        ({"background_options": {"completion_window": "8h"}}, Lane.LOW, 28_800),
        ({"background_options": {"completion_window": "soonest"}}, Lane.NORMAL, None),
    ],
)
def test_the_tier_chooses_the_lane(changes: dict[str, Any], lane: Lane, max_wait_s: float | None) -> None:
    draft = draft_of(**changes)
    assert (draft.lane, draft.max_wait_s) == (lane, max_wait_s)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({}, "service_tier"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"service_tier": "flex", "job": {"lane": "high"}}, "job.lane"),
        ({"background_options": {"completion_window": "8h"}}, "background_options.completion_window"),
        ({"background_options": {"completion_window": "8h"}, "job": {"lane": "low"}}, "job.lane"),
    ],
)
def test_a_lane_that_is_not_open_is_blamed_on_what_chose_it(changes: dict[str, Any], param: str) -> None:
    assert draft_of(**changes).spelling.lane == param


def test_instructions_come_first_and_an_earlier_answer_can_be_sent_back() -> None:
    answer = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Yes.", "annotations": [], "logprobs": []}],
    }
    draft = draft_of(instructions="Be brief.", input=[{"role": "user", "content": "Hi"}, answer])
    assert draft.messages == (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Yes."))


def test_what_came_before_an_earlier_answer_can_be_sent_back_too() -> None:
    thought = ResponseReasoningItem(id="rs_1", type="reasoning", summary=[], content=None, status="completed")
    draft = draft_of(
        input=[{"role": "user", "content": "Hi"}, thought.model_dump(), {"role": "user", "content": "So?"}]
    )
    assert draft.messages == (Message("user", "Hi"), Message("user", "So?"))
    with pytest.raises(InvalidRequest):
        draft_of(input=[thought.model_dump()])


def test_a_schema_reaches_the_engine_in_its_own_spelling() -> None:
    shape = {"name": "n", "description": "d", "schema": {"type": "object"}, "strict": True}
    assert draft_of(text={"format": {"type": "json_schema", **shape}}).response_format == {
        "type": "json_schema",
        "json_schema": shape,
    }


@pytest.mark.parametrize(
    ("changes", "top_logprobs"),
    [
        ({}, None),
        ({"top_logprobs": 0, "include": []}, None),
        ({"include": [LOGPROBS]}, 0),
        ({"include": [LOGPROBS], "top_logprobs": 20}, 20),
        ({"include": [ENCRYPTED]}, None),
        ({"include": [ENCRYPTED, LOGPROBS]}, 0),
    ],
)
def test_log_probabilities_come_when_they_are_to_be_included(changes: dict[str, Any], top_logprobs: int | None) -> None:
    assert draft_of(**changes).top_logprobs == top_logprobs


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"starting_after": "5"}, "starting_after"),
        ({"stream": "true", "starting_after": "-1"}, "starting_after"),
        ({"stream": "true", "starting_after": "x"}, "starting_after"),
        ({"stream": "true", "wait": "5"}, "wait"),
        ({"stream": "perhaps"}, "stream"),
        ({"include": "x"}, "include"),
    ],
)
def test_a_bad_query_is_named(asked: dict[str, str], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        validated(ResponseQuery, asked)
    assert raised.value.param == param


def test_a_query_can_ask_for_the_rest_of_a_stream() -> None:
    asked = validated(ResponseQuery, {"stream": "true", "starting_after": "0", "include_obfuscation": "false"})
    assert (asked.stream, asked.starting_after) == (True, 0)


def test_what_clients_send_by_default_is_accepted() -> None:
    part = {"type": "input_text", "text": "Hi", "cache_control": {"type": "ephemeral"}, "unknown": None}
    given = {"truncation": "auto", "include": [ENCRYPTED], "unknown": None, "top_k": 3}
    draft = draft_of(**given, input=[{"role": "user", "content": [part], "unknown": None}])
    assert (draft.messages, draft.extra_sampling) == ((Message("user", "Hi"),), {"top_k": 3})


def test_what_the_sdk_has_read_from_an_answer_may_be_sent_back_with_it() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "parsed_arguments": {}}
    said = {"role": "assistant", "content": [{"type": "output_text", "text": "{}", "parsed": {}}]}
    draft = draft_of(input=[said, call])
    assert draft.continuation is not None
    assert draft.continuation.turns == (
        Message("assistant", "{}"),
        Message("assistant", "", tool_calls=(ToolCall("c", "f", "{}"),)),
    )


@pytest.mark.parametrize(
    ("item", "kind", "place"),
    [
        ({"type": "computer_call_output", "output": "x"}, "computer_call_output", "input.0"),
        (
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image"}]},
            "input_image",
            "input.0.output.0",
        ),
        ({"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}, "input_image", "input.0.content.0"),
    ],
)
def test_an_item_that_is_not_read_is_named_by_its_type(item: dict[str, Any], kind: str, place: str) -> None:
    with pytest.raises(InvalidRequest, match=f"Unsupported type '{kind}' in '{place}'") as raised:
        draft_of(input=[item])
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", f"{place}.type")


RS, MSG = f"rs_{'1' * 32}", f"msg_{'1' * 32}"


def test_references_keep_their_places_among_the_turns() -> None:
    items = [
        {"type": "item_reference", "id": MSG},
        {"type": "reasoning", "id": RS, "summary": []},
        {"role": "user", "content": "So?"},
        {"type": "item_reference", "id": f"{MSG}_0"},
    ]
    draft = draft_of(input=items, instructions="Be brief.", previous_response_id="resp_1")
    assert draft.messages == ()
    assert draft.continuation == Continuation(
        "resp_1",
        Message("system", "Be brief."),
        (ItemReference(MSG, "input.0.id"), Message("user", "So?"), ItemReference(f"{MSG}_0", "input.3.id")),
    )


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input": [{"type": "item_reference"}]}, "input.0.id"),
        ({"input": [{"type": "item_reference", "id": 5}]}, "input.0.id"),
        ({"input": [{"type": "item_reference", "id": MSG, "role": "user"}]}, "input.0"),
        ({"input": [{"type": "item_reference", "id": MSG}] * 257}, "input"),
        ({"input": "", "previous_response_id": "resp_1"}, "input"),
        ({"previous_response_id": 5}, "previous_response_id"),
        ({"references": []}, "references"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_bad_reference_is_named(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        draft_of(**changes)
    assert raised.value.param == param


def test_what_is_not_stored_is_not_cached_either() -> None:
    draft = draft_of(store=False, background=False, temperature=0)
    assert (draft.is_stored, draft.cache) == (False, "never")
    assert draft_of(store=True).is_stored
    with pytest.raises(InvalidRequest) as raised:
        draft_of(store=False, background=False, job={"cache": "exact"})
    assert raised.value.param == "job.cache"


FIELDS = {"name": "f", "parameters": {"type": "object"}, "description": "d"}


@pytest.mark.parametrize(
    ("changes", "tools"),
    [
        ({}, None),
        ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}, None),
        ({"tools": [FUNCTION]}, Tools((FIELDS,))),
        ({"tools": [FUNCTION], "tool_choice": "none"}, Tools((FIELDS,), "none")),
        ({"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "f"}}, Tools((FIELDS,), "function", "f")),
        ({"tools": [FUNCTION], "parallel_tool_calls": False}, Tools((FIELDS,), parallel=False)),
    ],
)
def test_tools_arrive_as_they_were_given(changes: dict[str, Any], tools: Tools | None) -> None:
    assert draft_of(**changes).tools == tools


def test_calls_and_outputs_are_turns_in_their_places() -> None:
    call = ResponseFunctionToolCall(call_id="c", name="f", arguments="{}", type="function_call", id="fc_1")
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    items = [
        {"role": "user", "content": "Hi"},
        {"type": "item_reference", "id": "msg_1"},
        call.model_dump(),
        {"type": "reasoning", "summary": []},
        {"type": "function_call_output", "call_id": "c", "output": parts},
        {"role": "user", "content": "So?"},
    ]
    draft = draft_of(input=items, instructions="Be brief.")
    assert draft.messages == ()
    assert draft.continuation == Continuation(
        None,
        Message("system", "Be brief."),
        (
            Message("user", "Hi"),
            ItemReference("msg_1", "input.1.id"),
            Message("assistant", "", tool_calls=(ToolCall("c", "f", "{}"),)),
            Message("tool", "a\nb", tool_call_id="c"),
            Message("user", "So?"),
        ),
    )
    assert not draft.continuation.is_whole
    assert draft_of(input=[items[2], items[4]]).continuation.is_whole
