"""OpenAI's completions: each field is honoured, refused by name, or on the short list of those not acted on."""

from typing import Any

import pytest
from openai.types.completion_create_params import CompletionCreateParamsBase

from api.schemas.body import validated
from api.schemas.completions import CompletionRequest
from headrace.domain.prompts import Message
from headrace.errors import InvalidRequest

TEXT = "The sky is"


def asked(**changes: Any) -> CompletionRequest:
    return validated(CompletionRequest, {"prompt": TEXT, **changes})


def test_each_field_of_the_sdk_is_known() -> None:
    theirs = set(CompletionCreateParamsBase.__annotations__)
    assert theirs <= set(CompletionRequest.model_fields) | set(CompletionRequest.UNSUPPORTED)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (TEXT, Message("text", TEXT)),
        ([TEXT], Message("text", TEXT)),
        ([1, 2], Message("text_tokens", "1 2")),
        ([[1, 2]], Message("text_tokens", "1 2")),
    ],
)
def test_a_prompt_is_a_text_or_token_ids(prompt: Any, message: Message) -> None:
    draft = asked(prompt=prompt).to_draft()
    assert (draft.messages, draft.is_plain, draft.is_embedding) == ((message,), True, False)


def test_everything_that_is_honoured_arrives() -> None:
    draft = asked(max_tokens=5, stop="x", seed=7, logprobs=2, ignore_eos=True, user="u", stream=True).to_draft()
    assert (draft.max_tokens, draft.stop, draft.seed, draft.top_logprobs, draft.end_user) == (5, ("x",), 7, 2, "u")
    assert (draft.extra_sampling, draft.stream, draft.background) == ({"ignore_eos": True}, True, False)
    plain = asked(best_of=1, n=1, suffix=None).to_draft()
    assert (plain.max_tokens, plain.default_max_tokens, plain.top_logprobs) == (None, 16, None)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        *(
            ({"prompt": bad}, "prompt")
            for bad in ("", [], [[]], ["a", "b"], [[1], [2]], [-1], [1, "a"], [2**31], {}, 5)
        ),
        ({"suffix": "x"}, "suffix"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"echo": True, "prompt": [1]}, "echo"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"logprobs": 21}, "logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"chat_template_kwargs": {"a": 1}}, "chat_template_kwargs"),
        ({"messages": []}, "messages"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_bad_field_is_named(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        asked(**changes)
    assert raised.value.param == param
