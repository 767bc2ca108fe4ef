"""Completions through the SDK: a text continued as it is, waiting and streaming, and never by the paid API."""

from collections.abc import Callable
from typing import Any

import openai
import pytest
import sqlalchemy as sa
from openai import OpenAI

from headrace.domain.ids import parse_id
from headrace.store import Store
from headrace.tables import job_texts, jobs

ANSWER = "Because of Rayleigh scattering."
TEXT = "The sky is blue. Why?"


def create(sdk: OpenAI, **arguments: Any) -> Any:
    return sdk.completions.create(**{"model": sdk.models.list().data[0].id, "prompt": TEXT, **arguments})


@pytest.mark.usefixtures("answering")
def test_a_text_is_continued(sdk: OpenAI, store: Store) -> None:
    done = create(sdk, max_tokens=50, temperature=0)
    [choice] = done.choices
    assert (done.object, choice.text, choice.finish_reason, choice.logprobs) == (
        *("text_completion", ANSWER, "stop"),
        None,
    )
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (9, 7)
    job_id = parse_id(done.id)
    with store.begin() as db:
        stored = db.scalar(sa.select(job_texts.c.messages).where(job_texts.c.job_id == job_id))
        overflow = db.scalar(sa.select(jobs.c.overflow).where(jobs.c.id == job_id))
    assert (stored, overflow) == ([{"role": "text", "content": TEXT}], "never")
    assert sdk.get(f"/jobs/{done.id}", cast_to=dict[str, Any])["text"] == ANSWER


@pytest.mark.usefixtures("answering")
def test_the_text_comes_again_where_it_is_asked_for(make_sdk: Callable[..., OpenAI], key: str) -> None:
    sdk = make_sdk(key, _strict_response_validation=False)
    assert create(sdk, echo=True).choices[0].text == TEXT + ANSWER
    assert "".join(chunk.choices[0].text for chunk in create(sdk, echo=True, stream=True)) == TEXT + ANSWER


@pytest.mark.usefixtures("answering")
def test_a_stream_tells_the_answer_and_its_usage(make_sdk: Callable[..., OpenAI], key: str) -> None:
    # The SDK's type of a chunk has no null for `finish_reason`, which OpenAI sends.
    sdk = make_sdk(key, _strict_response_validation=False)
    chunks = list(create(sdk, stream=True, stream_options={"include_usage": True}))
    told = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.text for choice in told) == ANSWER
    assert [choice.finish_reason for choice in told if choice.finish_reason] == ["stop"]
    assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 16)


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize("stream", [False, True])
def test_each_token_comes_with_its_log_probability(make_sdk: Callable[..., OpenAI], key: str, stream: bool) -> None:
    sdk = make_sdk(key, _strict_response_validation=False)
    made = create(sdk, logprobs=2, stream=stream)
    found = [choice.logprobs for each in (made if stream else [made]) for choice in each.choices if choice.logprobs]
    assert [token for each in found for token in each.tokens] == [
        "Because of ",
        "Rayleigh ",
        "scattering.",
        "<|im_end|>",
    ]
    assert [offset for each in found for offset in each.text_offset] == [0, 11, 20, 31]
    assert found[0].top_logprobs[0] == {"Because of ": -0.5, "other0": -1.0}


@pytest.mark.usefixtures("answering")
def test_token_ids_are_continued_as_they_are(sdk: OpenAI, store: Store) -> None:
    done = create(sdk, prompt=[5, 6, 7])
    with store.begin() as db:
        stored = db.scalar(sa.select(job_texts.c.messages).where(job_texts.c.job_id == parse_id(done.id)))
        counted = db.scalar(sa.select(jobs.c.prompt_tokens).where(jobs.c.id == parse_id(done.id)))
    assert (stored, counted) == ([{"role": "text_tokens", "content": "5 6 7"}], 9)


def test_the_paid_api_continues_no_text(sdk: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="The paid API") as raised:
        create(sdk, extra_body={"job": {"overflow": "only"}})
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", "prompt")
