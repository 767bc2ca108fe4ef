"""What clients send by default is accepted, and what they look for in an error is there: the SDK over real HTTP."""

from collections.abc import Callable
from typing import Any

import openai
import pytest
import sqlalchemy as sa
from openai import OpenAI

from headrace.domain.ids import parse_id
from headrace.domain.prompts.payloads import read_sampling
from headrace.store import Store
from headrace.tables import job_texts

ANSWER = "Because of Rayleigh scattering."

QUESTION: Any = [{"role": "user", "content": "Why is the sky blue?"}]


def model_of(sdk: OpenAI) -> str:
    return sdk.models.list().data[0].id


@pytest.mark.usefixtures("answering")
def test_a_chat_as_agents_send_it_is_answered(sdk: OpenAI) -> None:
    messages: Any = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
        {"role": "user", "name": "ann", "content": "Hi"},
        {"role": "assistant", "content": None, "reasoning_content": "Hm.", "tool_calls": None},
        {"role": "user", "content": "And?", "cache_control": {"type": "ephemeral"}},
    ]
    nothing = {"tools": None, "logit_bias": {}, "thinking": None, "plugins": None}
    done = sdk.chat.completions.create(model=model_of(sdk), messages=messages, stop=[], n=1, extra_body=nothing)
    assert done.choices[0].message.content == ANSWER


@pytest.mark.usefixtures("answering")
def test_a_response_as_agents_send_it_is_answered(sdk: OpenAI) -> None:
    done = sdk.responses.create(
        input=QUESTION, include=["reasoning.encrypted_content"], truncation="auto", extra_body={"betas": None}
    )
    assert done.output_text == ANSWER


@pytest.mark.usefixtures("answering")
def test_how_an_open_model_samples_reaches_its_worker(sdk: OpenAI, store: Store) -> None:
    extra = {"top_k": 20, "min_p": 0.05, "repetition_penalty": 1.1, "chat_template_kwargs": {"enable_thinking": False}}
    done = sdk.chat.completions.create(
        model=model_of(sdk), messages=QUESTION, presence_penalty=0.5, logit_bias={"7": -100}, extra_body=extra
    )
    with store.begin() as db:
        stored = db.scalar(sa.select(job_texts.c.sampling).where(job_texts.c.job_id == parse_id(done.id)))
    assert read_sampling(stored).extra == {**extra, "presence_penalty": 0.5, "logit_bias": {"7": -100}}


LONG: Any = [{"role": "user", "content": "word " * 5000}]


@pytest.mark.parametrize(
    "call",
    [
        lambda sdk: sdk.chat.completions.create(model=model_of(sdk), messages=LONG),
        lambda sdk: sdk.responses.create(model=model_of(sdk), input=LONG),
    ],
)
def test_a_prompt_that_is_too_long_says_so_in_the_words_that_fallbacks_look_for(
    sdk: OpenAI, call: Callable[[OpenAI], Any]
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        call(sdk)
    assert raised.value.code == "context_length_exceeded"
    assert "This model's maximum context length is 2048 tokens" in raised.value.message
    # LangChain and LiteLLM search the whole text.
    assert "context_length_exceeded" in str(raised.value)


def test_an_item_that_is_not_read_is_named_by_its_type(sdk: OpenAI) -> None:
    item: Any = {"type": "custom_tool_call_output", "call_id": "c", "output": "x"}
    with pytest.raises(openai.BadRequestError, match="Unsupported type 'custom_tool_call_output'") as raised:
        sdk.responses.create(input=[item])
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", "input.0.type")
