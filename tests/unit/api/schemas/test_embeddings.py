"""OpenAI's embeddings: each field of the SDK is known, and the answer is in the form that was asked for."""

from typing import Any

import pytest
from openai.types import EmbeddingCreateParams

from api.schemas.body import validated
from api.schemas.embeddings import EmbeddingRequest
from headrace.domain.prompts.embeddings import MOST_INPUTS, text_input
from headrace.domain.queues import Lane, Overflow
from headrace.errors import InvalidRequest


def test_each_field_of_the_sdk_is_known() -> None:
    assert set(EmbeddingRequest.model_fields) == {*EmbeddingCreateParams.__annotations__, "job"}


def test_every_field_arrives() -> None:
    job = {"lane": "batch", "max_wait": 9.0, "overflow": "never", "webhook": "https://example.com/hook"}
    asked = {"input": ["a", "b"], "model": "m", "dimensions": 8, "encoding_format": "base64", "user": "u", "job": job}
    draft = validated(EmbeddingRequest, asked).to_draft()
    assert draft.messages == (text_input("a"), text_input("b"))
    assert (draft.model, draft.dimensions, draft.end_user, draft.background) == ("m", 8, "u", False)
    assert (draft.lane, draft.max_wait_s, draft.overflow) == (Lane.BATCH, 9.0, Overflow.NEVER)
    assert draft.webhook_url == "https://example.com/hook"
    assert (draft.spelling.prompt, draft.spelling.own_prefix) == ("input", "job.")


def test_as_many_inputs_as_openai_takes_are_taken() -> None:
    assert len(validated(EmbeddingRequest, {"input": ["a"] * MOST_INPUTS}).to_draft().messages) == MOST_INPUTS


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({}, "input"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "temperature": 1}, "temperature"),
        ({"input": "a", "stream": True}, "stream"),
        ({"input": "a", "job": {"lane": "urgent"}}, "job.lane"),
        ({"input": [{"role": "user", "content": "a"}]}, "input"),
    ],
)
def test_a_bad_field_is_named(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        validated(EmbeddingRequest, asked)
    assert raised.value.param == param
