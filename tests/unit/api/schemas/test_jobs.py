"""The native request: every field arrives in the draft, and every wrong one is named."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from api.schemas.body import validated
from api.schemas.jobs import JobBody, JobRequest
from headrace.domain.prompts import NEUTRAL_EXTRA, Message
from headrace.domain.prompts.compression import CompressChoice
from headrace.domain.prompts.embeddings import text_input, token_input
from headrace.domain.prompts.tools import Tools
from headrace.domain.queues import Lane, Overflow
from headrace.errors import InvalidRequest

SOON = datetime.now(UTC) + timedelta(hours=1)
EARLIER = SOON - timedelta(days=1)

WHOLE: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    "max_tokens": 64,
    "lane": "high",
    "max_wait": 12.5,
    "deadline": SOON.isoformat(),
    "overflow": "never",
    "max_cost_usd": "0.05",
    "temperature": 0,
    "top_p": 1,
    "stop": ["a", "b"],
    "seed": -1,
    "n": 3,
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    "top_logprobs": 0,
    "reasoning_effort": "xhigh",
    "metadata": {"k": "v"},
    "webhook": "https://example.com/hook",
    "end_user": "u",
    "cache": "exact",
    "not_before": EARLIER.isoformat(),
    "top_k": 5,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "presence_penalty": -2,
    "frequency_penalty": 2,
    "logit_bias": {"7": -100},
    "min_tokens": 3,
    "stop_token_ids": [2],
    "ignore_eos": True,
    "skip_special_tokens": False,
    "chat_template_kwargs": {"enable_thinking": False},
    "compress": "plain",
    "compress_also": ["system"],
    "quality": "high",
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "required",
    "parallel_tool_calls": False,
}


def test_every_field_arrives() -> None:
    draft = validated(JobRequest, WHOLE).to_draft()

    assert draft.messages == (Message("system", "Be brief."), Message("user", "Hi"))
    assert (draft.model, draft.max_tokens, draft.lane, draft.max_wait_s) == ("m", 64, Lane.HIGH, 12.5)
    assert (draft.not_before, draft.deadline) == (EARLIER, SOON)
    assert (draft.overflow, draft.max_cost_usd) == (Overflow.NEVER, Decimal("0.05"))
    assert (draft.temperature, draft.top_p, draft.stop, draft.seed, draft.n) == (0, 1, ("a", "b"), -1, 3)
    assert (draft.response_format, draft.top_logprobs) == (WHOLE["response_format"], 0)
    assert (draft.reasoning_effort, draft.cache, draft.quality) == ("xhigh", "exact", "high")
    assert draft.extra_sampling == {name: WHOLE[name] for name in NEUTRAL_EXTRA}
    assert draft.compress == CompressChoice("plain", ("system",))
    assert (draft.metadata, draft.webhook_url, draft.end_user) == ({"k": "v"}, "https://example.com/hook", "u")
    assert draft.tools == Tools(({"name": "f"},), "required", parallel=False)
    assert set(WHOLE) | {"prompt", "input", "dimensions"} == set(JobRequest.model_fields)


def test_a_prompt_is_one_user_message() -> None:
    assert validated(JobRequest, {"prompt": "Hi", "stop": "x"}).to_draft().messages == (Message("user", "Hi"),)


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ("Hi", [text_input("Hi")]),
        (["Hi", " "], [text_input("Hi"), text_input(" ")]),
        ([1, 2], [token_input([1, 2])]),
        ([[1, 2], [3]], [token_input([1, 2]), token_input([3])]),
        (["Hi", [4]], [text_input("Hi"), token_input([4])]),
    ],
)
def test_inputs_are_texts_or_token_ids(given: Any, messages: list[Message]) -> None:
    draft = validated(JobRequest, {"input": given, "dimensions": 64, "lane": "low"}).to_draft()
    assert draft.messages == tuple(messages)
    assert (draft.is_embedding, draft.dimensions, draft.spelling.prompt, draft.lane) == (True, 64, "input", Lane.LOW)


@pytest.mark.parametrize(
    "deadline",
    [SOON.timestamp(), int(SOON.timestamp()) + 1, SOON.isoformat(), "2099-01-01T00:00Z"],
    ids=["seconds", "whole seconds", "a text", "a text without seconds"],
)
def test_a_deadline_is_unix_seconds_or_iso_8601(deadline: object) -> None:
    made = validated(JobRequest, {"prompt": "Hi", "deadline": deadline}).to_draft().deadline
    assert made is not None
    assert made >= SOON - timedelta(milliseconds=1)


@pytest.mark.parametrize("usd", [0, 0.05, "0.05", "1e-9", "0e-99999", "-0"])
def test_money_is_a_number_or_a_string(usd: object) -> None:
    made = validated(JobRequest, {"prompt": "Hi", "max_cost_usd": usd}).to_draft().max_cost_usd
    assert made == Decimal(str(usd))
    assert made.as_tuple().exponent >= -9


BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompt": ""}, "prompt"),
    ({"prompt": " \n"}, "prompt"),
    ({}, "prompt"),
    ({"prompt": "a", "messages": WHOLE["messages"]}, "prompt"),
    ({"prompt": 5}, "prompt"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user", "content": ""}]}, "messages"),
    ({"messages": [{"role": "function", "content": "a"}]}, "messages.0.role"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": "a", "name": 5}]}, "messages.0.name"),
    *(({"prompt": "a", "max_tokens": bad}, "max_tokens") for bad in (-1, 0, 2**31, "5", 5.0, True, [5])),
    *(({"prompt": "a", "cache": bad}, "cache") for bad in ("fuzzy", "", True, 0)),
    *(({"prompt": "a", "top_logprobs": bad}, "top_logprobs") for bad in (-1, 21, "5", 1.0, True)),
    *(({"prompt": "a", "reasoning_effort": bad}, "reasoning_effort") for bad in ("great", "LOW", "", 1, False)),
    *(({"prompt": "a", "lane": bad}, "lane") for bad in ("urgent", "HIGH", 1)),
    *(({"prompt": "a", "max_wait": bad}, "max_wait") for bad in (0, -1, 86_401, "30", False)),
    *(
        ({"prompt": "a", "deadline": bad}, "deadline")
        for bad in ("2099-01-01", "9999-12-31T23:59:59-01:00", "x", 1e300, True)
    ),
    *(({"prompt": "a", "max_cost_usd": bad}, "max_cost_usd") for bad in (-1, "x", "NaN", "1e99", "0.0000000001", True)),
    *(({"prompt": "a", "temperature": bad}, "temperature") for bad in (-0.1, 2.1, "1")),
    *(({"prompt": "a", "top_p": bad}, "top_p") for bad in (0, 1.1)),
    *(({"prompt": "a", "top_k": bad}, "top_k") for bad in (-2, 1.5, True, 2**31)),
    *(({"prompt": "a", "min_p": bad}, "min_p") for bad in (-0.1, 1.1)),
    ({"prompt": "a", "repetition_penalty": 0}, "repetition_penalty"),
    ({"prompt": "a", "min_tokens": -1}, "min_tokens"),
    ({"prompt": "a", "stop_token_ids": [1] * 65}, "stop_token_ids"),
    ({"prompt": "a", "stop_token_ids": [-1]}, "stop_token_ids.0"),
    ({"prompt": "a", "ignore_eos": 1}, "ignore_eos"),
    ({"prompt": "a", "chat_template_kwargs": {"a": "x" * 16_384}}, "chat_template_kwargs"),
    ({"prompt": "a", "stop": ["a"] * 5}, "stop"),
    ({"prompt": "a", "stop": [""]}, "stop.0"),
    ({"prompt": "a", "seed": 2**63}, "seed"),
    *(
        ({"prompt": "a", "response_format": bad}, "response_format")
        for bad in ({}, {"type": "xml"}, {"type": "json_schema"})
    ),
    ({"prompt": "a", "response_format": {"type": "text", "schema": {}}}, "response_format"),
    (
        {"prompt": "a", "response_format": {"type": "json_schema", "json_schema": {"schema": {}, "unknown": 1}}},
        "response_format",
    ),
    ({"prompt": "a", "metadata": {str(i): "" for i in range(17)}}, "metadata"),
    ({"prompt": "a", "metadata": {"": "v"}}, "metadata."),
    ({"prompt": "a", "metadata": {"k": "v" * 513}}, "metadata.k"),
    ({"prompt": "a", "metadata": {"k": 1}}, "metadata.k"),
    *(
        ({"prompt": "a", "webhook": bad}, "webhook")
        for bad in (
            *("x", "ftp://a/b", "https://", "https://[", "https://u:p@a", 1),
            *(
                "https://a b.com/",
                "https://a.com/\r\nX: y",
                "https://a\tb.com/",
                "https://a..b/",
                f"https://{'a' * 64}.com/",
            ),
        )
    ),
    ({"prompt": "a", "webhook": "https://a:99999/"}, "webhook"),
    ({"prompt": "a", "end_user": ""}, "end_user"),
    ({"prompt": "a", "unknown": 1}, "unknown"),
    ({"prompt": "a", "input": "b"}, "prompt"),
    ({"prompt": "a", "dimensions": 64}, "dimensions"),
    *(({"input": bad}, "input") for bad in ("", [], {}, 5, True, [""], [[]], [None], [-1], [[1, "a"]], ["a"] * 2049)),
    *(({"input": ["a", bad]}, "input.1") for bad in ("", [], 1, None, [2**31], [True])),
    ({"input": [1, "a"]}, "input"),
    *(({"input": "a", "dimensions": bad}, "dimensions") for bad in (0, -1, 65_537, "64", 64.0)),
    *(
        ({"input": "a", name: WHOLE[name]}, name)
        for name in (
            "max_tokens",
            "temperature",
            "top_p",
            "stop",
            "seed",
            "response_format",
            "top_logprobs",
            *NEUTRAL_EXTRA,
        )
    ),
    ({"input": "a", "reasoning_effort": "low"}, "reasoning_effort"),
]


@pytest.mark.parametrize(("body", "param"), BAD, ids=lambda value: repr(value)[:60])
def test_a_bad_field_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        validated(JobRequest, body)
    assert raised.value.param == param


def test_money_and_time_leave_as_plain_text() -> None:
    schema = JobBody.model_json_schema(mode="serialization")
    assert schema["$defs"]["CostBody"]["properties"]["usd"]["type"] == "string"
    assert schema["properties"]["created_at"]["type"] == "string"
