"""What a line of a provider's file of results says of its job."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from headrace.domain.answers import Choice
from headrace.domain.attempts import Claim, Usage
from headrace.domain.ids import new_id
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Lane, Overflow, Route
from headrace.errors import EngineBusy, EngineError, EngineFault, PromptRejected, TooFewAnswers
from plugins.batches.provider_api import ProviderResult, answer_of
from workers.engines.base import Generation

CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


def claim(sampling: Sampling | None = None) -> Claim:
    return Claim(
        job_id=new_id(),
        attempt=1,
        enqueue_no=1,
        worker_id=new_id(),
        app_id=new_id(),
        end_user=None,
        lane=Lane.BATCH,
        pool="chat",
        model="m",
        overflow=Overflow.ALLOW,
        max_cost_usd=None,
        prompt_tokens=3,
        messages=(Message("user", "hello"),),
        sampling=sampling or Sampling(16),
        start_by=datetime.now(UTC) + timedelta(hours=1),
        finish_by=None,
        has_webhook=False,
        stream=False,
        suspicion=0,
        route=Route.OVERFLOW,
        reserved_usd=Decimal(1),
    )


def answered(*messages: dict[str, Any], finish_reason: str = "stop", **more: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}}
    choices = [
        {"index": number, "message": {"role": "assistant", **message}, "finish_reason": finish_reason, **more}
        for number, message in enumerate(messages)
    ]
    body = {"model": "paid-1", "choices": choices, "usage": usage, "service_tier": "default"}
    return {"response": {"status_code": 200, "body": body}, "error": None}


def test_an_answer_has_its_text_its_usage_and_the_tier_that_it_is_charged_by() -> None:
    made = answer_of(claim(), answered({"content": "A channel.", "reasoning": "Water."}))
    assert isinstance(made, Generation)
    assert (made.text, made.reasoning, made.finish_reason) == ("A channel.", "Water.", "stop")
    assert (made.usage, made.tier, made.model_served) == (Usage(9, 4, 2), "batch", "paid-1")
    assert made.first_token_s is None


def test_calls_of_tools_stay_apart_although_a_whole_answer_does_not_number_them() -> None:
    second = {**CALL, "id": "call_2", "function": {"name": "time", "arguments": "[]"}}
    made = answer_of(claim(), answered({"content": None, "tool_calls": [CALL, second]}, finish_reason="tool_calls"))
    assert isinstance(made, Generation)
    assert [(call.id, call.name, call.arguments) for call in made.tool_calls] == [
        ("call_1", "weather", "{}"),
        ("call_2", "time", "[]"),
    ]


def test_several_answers_and_log_probabilities_are_read() -> None:
    said = {"content": [{"token": "A", "logprob": -0.5, "bytes": [65], "top_logprobs": []}]}
    given = claim(Sampling(16, n=2, top_logprobs=0))
    made = answer_of(given, answered({"content": "A"}, {"content": "B"}, logprobs=said))
    assert isinstance(made, Generation)
    assert made.logprobs is not None
    assert [each["token"] for each in made.logprobs] == ["A"]
    assert [choice.text for choice in made.others if isinstance(choice, Choice)] == ["B"]


@pytest.mark.parametrize(
    ("line", "kind", "billed"),
    [
        ({"response": None, "error": {"code": "batch_expired", "message": ""}}, EngineBusy, None),
        ({}, EngineBusy, None),
        ({"response": {"status_code": 500, "body": {}}}, EngineBusy, None),
        ({"response": {"status_code": 400, "body": {"error": {"message": "too long"}}}}, PromptRejected, None),
        ({"response": {"status_code": 400, "body": "text"}}, PromptRejected, None),
        ({"response": {"status_code": 200, "body": {"hello": "world"}}}, EngineFault, None),
        ({"response": {"status_code": 200}}, EngineFault, None),
        (answered({"content": "half"}, finish_reason="content_filter"), PromptRejected, (9, 4, 2, 0)),
    ],
    ids=["expired", "empty", "500", "400", "400_text", "malformed", "no_body", "withheld"],
)
def test_a_line_without_an_answer_says_why_and_whether_it_is_billed(
    line: dict[str, Any], kind: type[EngineError], billed: tuple[int, ...] | None
) -> None:
    found = answer_of(claim(), line)
    assert isinstance(found, kind)
    assert (None if found.billed_tokens is None else tuple(found.billed_tokens)) == billed
    assert found.may_be_billed == (kind is EngineFault or billed is not None)
    if billed is not None:
        assert found.billed_tier == "batch"


def test_too_few_answers_are_billed_by_their_usage() -> None:
    found = answer_of(claim(Sampling(16, n=2)), answered({"content": "A"}))
    assert isinstance(found, TooFewAnswers)
    assert found.billed_tier == "batch"


@pytest.mark.parametrize(
    ("line", "usage"),
    [
        (answered({"content": "A"}), Usage(9, 4, 2)),
        ({}, Usage()),
        ({"response": None}, Usage()),
        ({"response": {"body": {"usage": {"prompt_tokens": "many"}}}}, Usage()),
        ({"response": {"body": {"usage": {"prompt_tokens": -1, "completion_tokens": 1}}}}, Usage()),
    ],
    ids=["answered", "empty", "null", "no_number", "negative"],
)
def test_what_a_line_says_that_it_used(line: dict[str, Any], usage: Usage) -> None:
    assert ProviderResult(None, line).usage == usage
