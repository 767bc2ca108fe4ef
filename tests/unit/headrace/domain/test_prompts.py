"""vLLM's extra sampling parameters, and the digest that identifies a prompt."""

import hashlib
import json
from typing import Any

import pytest

from headrace.domain.prompts import (
    NEUTRAL_EXTRA,
    PAID_EXTRA,
    Message,
    Sampling,
    extra_for_paid,
    extra_in_use,
    extra_of_own_engines,
    prompt_digest,
)


def test_neutral_values_change_nothing() -> None:
    neutral = {name: value for name, (value, *_) in NEUTRAL_EXTRA.items()}
    assert (extra_in_use(neutral), extra_for_paid(neutral), extra_of_own_engines(neutral, names_paid_tokens=False)) == (
        {},
        {},
        (),
    )
    assert (extra_in_use(None), extra_for_paid(None), extra_of_own_engines(None, names_paid_tokens=True)) == (
        {},
        {},
        (),
    )


def test_a_substitute_is_not_told_another_models_token_ids() -> None:
    extra = {"logit_bias": {"1": 1.0}, "presence_penalty": 0.5, "top_k": 4}
    assert extra_of_own_engines(extra, names_paid_tokens=True) == ("top_k",)
    assert extra_of_own_engines(extra, names_paid_tokens=False) == ("logit_bias", "top_k")
    assert set(extra_for_paid(extra)) <= set(PAID_EXTRA)


def test_a_digest_without_extra_parameters_is_that_of_earlier_releases() -> None:
    fields = ("temperature", "top_p", "seed", "response_format", "top_logprobs", "reasoning_effort", "dimensions")
    how = {"max_tokens": 5, "stop": [], **dict.fromkeys(fields)}
    asked = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "sampling": how}
    earlier = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()
    assert prompt_digest("m", [Message("user", "Hi")], Sampling(5)) == earlier


@pytest.mark.parametrize(
    ("message", "extra"),
    [
        (Message("user", "Hi", "ann"), None),
        (Message("user", "Hi"), {"top_k": 5}),
        (Message("user", "Hi"), {"top_k": 6}),
        (Message("user", "Hi"), {"chat_template_kwargs": {"a": 1}}),
    ],
)
def test_each_of_them_is_part_of_what_identifies_a_prompt(message: Message, extra: dict[str, Any] | None) -> None:
    plain = prompt_digest("m", [Message("user", "Hi")], Sampling(5))
    assert prompt_digest("m", [message], Sampling(5, extra=extra)) != plain


HELLO = (Message("user", "Hello"),)


def test_one_answer_has_the_digest_that_it_had_before_there_could_be_several() -> None:
    stored = "c39be77cc25b4387fafc12e413ef24f48a99636c5344c8cdef03c2720bec8289"
    assert prompt_digest("m", HELLO, Sampling(8)).hex() == stored


def test_more_answers_are_another_prompt() -> None:
    digests = {prompt_digest("m", HELLO, Sampling(8, n=n)) for n in (1, 2, 3)}
    assert len(digests) == 3
