"""OpenAI's chat completions: each field is honoured, refused by name, or on the short list of those not acted on."""

import re
from typing import Any

import pytest
from openai.types.chat import ChatCompletionAssistantMessageParam, ChatCompletionMessage
from openai.types.chat.chat_completion_stream_options_param import ChatCompletionStreamOptionsParam
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from api.door.drafts import Draft
from api.schemas.body import validated
from api.schemas.chat import ChatRequest, ChatTurn, StreamOptions
from api.schemas.fields import ASKS_EMPTY
from headrace.domain.prompts import Message
from headrace.domain.queues import Lane
from headrace.errors import InvalidRequest

LEAST: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}


def draft_of(**changes: Any) -> Draft:
    return validated(ChatRequest, {**LEAST, **changes}).to_draft()


def test_each_field_of_the_sdk_is_known() -> None:
    theirs = set(CompletionCreateParamsBase.__annotations__)
    assert theirs <= set(ChatRequest.model_fields) | set(ChatRequest.UNSUPPORTED)


def test_each_field_of_a_message_and_of_the_stream_options_is_known() -> None:
    theirs = {*ChatCompletionAssistantMessageParam.__annotations__, *ChatCompletionMessage.model_fields}
    assert theirs <= set(ChatTurn.model_fields) | set(ChatTurn.UNSUPPORTED)
    assert set(ChatCompletionStreamOptionsParam.__annotations__) <= set(StreamOptions.model_fields)


@pytest.mark.parametrize("name", sorted(ChatRequest.UNSUPPORTED))
def test_what_is_not_supported_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        draft_of(**{name: {"some": "thing"}})
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", name)
    assert name in str(raised.value)
    assert re.search("(?i)leave it out|send", str(raised.value)), "it says what to do instead"


@pytest.mark.parametrize("name", sorted(ChatTurn.UNSUPPORTED))
def test_what_a_message_cannot_have_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        draft_of(messages=[{"role": "assistant", "content": "Hi", name: "x"}])
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", f"messages.0.{name}")
    assert re.search("(?i)leave|send|say", str(raised.value)), "it says what to do instead"


@pytest.mark.parametrize("nothing", [None, [], {}, False, 0, 0.0])
@pytest.mark.parametrize("name", sorted(ChatRequest.UNSUPPORTED))
def test_asking_for_nothing_is_fine(name: str, nothing: Any) -> None:
    if name in ASKS_EMPTY and nothing == {}:
        with pytest.raises(InvalidRequest, match=name):
            draft_of(**{name: nothing})
        return
    assert draft_of(**{name: nothing}).messages


def test_everything_that_is_honoured_arrives() -> None:
    draft = draft_of(
        max_completion_tokens=5,
        temperature=0.5,
        top_p=0.9,
        stop=["a", "b"],
        seed=7,
        response_format={"type": "json_object"},
        reasoning_effort="minimal",
        service_tier="flex",
        metadata={"k": "v"},
        n=128,
        modalities=["text"],
        safety_identifier="u",
        job={"overflow": "never", "max_wait": 9},
    )
    assert (draft.max_tokens, draft.temperature, draft.top_p, draft.stop, draft.seed) == (5, 0.5, 0.9, ("a", "b"), 7)
    assert (draft.response_format, draft.metadata) == ({"type": "json_object"}, {"k": "v"})
    assert (draft.reasoning_effort, draft.spelling.effort) == ("minimal", "reasoning_effort")
    assert (draft.lane, draft.end_user, draft.overflow, draft.max_wait_s) == (Lane.LOW, "u", "never", 9)
    assert (draft.background, draft.stream, draft.n) == (False, False, 128)


def test_the_older_name_of_the_limit_is_blamed_where_it_was_used() -> None:
    older, newer = draft_of(max_tokens=5), draft_of(max_completion_tokens=5, max_tokens=5)
    assert (older.max_tokens, older.spelling.max_tokens) == (5, "max_tokens")
    assert (newer.max_tokens, newer.spelling.max_tokens) == (5, "max_completion_tokens")


@pytest.mark.parametrize(
    ("changes", "top_logprobs"),
    [
        ({}, None),
        ({"logprobs": False, "top_logprobs": 0}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20),
    ],
)
def test_log_probabilities_come_when_they_are_asked_for(changes: dict[str, Any], top_logprobs: int | None) -> None:
    assert draft_of(**changes).top_logprobs == top_logprobs


def test_an_earlier_answer_can_be_sent_back_as_it_came() -> None:
    answer = ChatCompletionMessage(role="assistant", content="Yes.", annotations=[], reasoning="Hm.").model_dump()
    turns = [{"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]}]
    draft = draft_of(messages=[*turns, {"role": "user", "content": "Hi"}, answer])
    assert draft.messages == (
        Message("developer", "Be\nbrief."),
        Message("user", "Hi"),
        Message("assistant", "Yes."),
    )


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
        ({"messages": ["Hi"]}, "messages.0"),
        ({"messages": [{"role": "function", "content": "x", "name": "y"}]}, "messages.0.role"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages"),
        ({"messages": [{"role": "user", "content": "Hi", "name": "x" * 65}]}, "messages.0.name"),
        ({"logit_bias": {"word": 1}}, "logit_bias.word"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"logit_bias": {str(number): 1 for number in range(1001)}}, "logit_bias"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_completion_tokens": 5, "max_tokens": 6}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"reasoning_effort": "great"}, "reasoning_effort"),
        ({"reasoning_effort": 1}, "reasoning_effort"),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"top_logprobs": 1, "logprobs": False}, "top_logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities.1"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"service_tier": "ultrafast"}, "service_tier"),
        ({"store": True}, "store"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"job": {"lane": "fast"}}, "job.lane"),
        ({"background": True}, "background"),
        ({"unknown": 1}, "unknown"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_bad_field_is_named(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        draft_of(**changes)
    assert raised.value.param == param


#: An earlier answer as OpenAI's SDKs send it back.
CALLED = {
    "role": "assistant",
    "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}", "parsed_arguments": {}}}
    ],
}


@pytest.mark.parametrize(
    "changes",
    [
        {"stop": []},
        {"unknown": None},
        {"messages": [{"role": "user", "content": "Hi", "unknown": None}, *[{"role": "user", "content": "x"}] * 3]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "e"}}]}]},
        {"messages": [{"role": "user", "content": "Hi", "cache_control": {"type": "ephemeral"}}]},
        {"messages": [{"role": "user", "content": "Hi", "provider_specific_fields": {"refusal": None}}]},
        {"messages": [{"role": "user", "content": "Hi", "reasoning_content": "Hm."}]},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "{}", "parsed": {}}]},
        {"messages": [{"role": "user", "content": "Hi"}, CALLED]},
        {"response_format": {"type": "text", "json_schema": None}},
        {"stream": True, "stream_options": {"continuous_usage_stats": True}},
    ],
    ids=repr,
)
def test_what_clients_send_by_default_is_accepted(changes: dict[str, Any]) -> None:
    assert draft_of(**changes).messages[0] == Message("user", "Hi")


def test_who_speaks_is_kept_and_an_answer_may_have_no_text() -> None:
    turns = [{"role": "user", "content": "Hi", "name": "ann"}, {"role": "assistant", "content": None, "name": ""}]
    assert draft_of(messages=turns).messages == (Message("user", "Hi", "ann"), Message("assistant", ""))


@pytest.mark.parametrize(
    ("options", "usage_in"),
    [
        (None, None),
        ({}, None),
        ({"include_usage": True}, "end"),
        ({"include_usage": True, "continuous_usage_stats": False}, "end"),
        ({"continuous_usage_stats": True}, "chunks"),
    ],
)
def test_the_options_of_a_stream_say_which_chunks_have_the_usage(options: Any, usage_in: str | None) -> None:
    assert validated(ChatRequest, {**LEAST, "stream": True, "stream_options": options}).usage_in == usage_in


def test_how_an_open_model_samples_arrives_as_it_was_given() -> None:
    given = {"top_k": 5, "logit_bias": {"7": -100}, "ignore_eos": False, "chat_template_kwargs": {"deep": True}}
    assert draft_of(**given, min_p=None).extra_sampling == given
    assert draft_of(min_p=None).extra_sampling is None


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "chat_template"])
def test_a_template_is_given_no_variable_that_is_ours(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"'{name}' cannot be set") as raised:
        draft_of(chat_template_kwargs={name: True})
    assert raised.value.param == "chat_template_kwargs"
