"""vLLM's extra sampling parameters, and what identifies a prompt with and without them."""

import hashlib
import json
from typing import Any

import pytest

from headrace.domain.prompts import Message, Sampling, prompt_digest
from headrace.domain.prompts.extra_sampling import NEUTRAL, PAID, for_paid, in_use, ours_alone


def test_neutral_values_change_nothing() -> None:
    neutral = {name: value for name, (value, *_) in NEUTRAL.items()}
    assert (in_use(neutral), for_paid(neutral), ours_alone(neutral, names_paid_tokens=False)) == ({}, {}, ())
    assert (in_use(None), for_paid(None), ours_alone(None, names_paid_tokens=True)) == ({}, {}, ())


def test_a_substitute_is_not_told_another_models_token_ids() -> None:
    extra = {"logit_bias": {"1": 1.0}, "presence_penalty": 0.5, "top_k": 4}
    assert ours_alone(extra, names_paid_tokens=True) == ("top_k",)
    assert ours_alone(extra, names_paid_tokens=False) == ("logit_bias", "top_k")
    assert set(for_paid(extra)) <= set(PAID)


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
