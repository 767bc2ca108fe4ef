"""What is read of a stream's bytes."""

import json
from dataclasses import replace
from typing import Any

import pytest

from headrace.domain.attempts import Usage
from headrace.domain.choices import Choice
from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.tools import ToolCall, joined
from headrace.errors import EngineError, EngineFault, TooFewAnswers
from workers.engines.base import Delta, GenerationRequest
from workers.engines.openai.stream import ChatCall

REQUEST = GenerationRequest("r1", (Message("user", "hello"),), Sampling(max_tokens=16))


def chunk(*choices: dict[str, Any], usage: dict[str, int] | None = None, **fields: str) -> bytes:
    text = json.dumps({"model": "m", "choices": choices, "usage": usage, **fields}, ensure_ascii=False)
    return f"data: {text}\r\n\r\n".encode()


STREAM = (
    b": a comment\r\n\r\n"
    + chunk({"delta": {"content": "gr\u00fc\u00df\u2028"}})
    + chunk({"delta": {"content": "dich"}, "finish_reason": "stop"})
    + chunk(usage={"prompt_tokens": 3, "completion_tokens": 2})
    + b"data: [DONE]"
)


def test_it_does_not_matter_where_the_stream_is_cut() -> None:
    for at in range(1, len(STREAM)):
        call = ChatCall(REQUEST, None)
        for part in (STREAM[:at], STREAM[at:], b"\n"):
            call.read(part)
        generation = call.generation()
        assert (generation.text, generation.usage) == ("gr\u00fc\u00df\u2028dich", Usage(3, 2)), at


def tool(index: int, call_id: str | None = None, name: str | None = None, arguments: str | None = None) -> bytes:
    given = {"name": name, "arguments": arguments}
    function = {key: value for key, value in given.items() if value is not None}
    call = {"index": index, **({"id": call_id, "type": "function"} if call_id else {}), "function": function}
    return chunk({"delta": {"tool_calls": [call]}})


def test_calls_are_read_piece_by_piece() -> None:
    deltas: list[Delta] = []
    call = ChatCall(REQUEST, deltas.append)
    call.read(chunk({"delta": {"role": "assistant", "content": None}}))
    call.read(tool(0, "call_1", "weather", ""))
    call.read(tool(0, arguments='{"city": ') + tool(0, arguments='"Paris"}'))
    call.read(tool(1, "call_2", "time", "{}"))
    call.read(chunk({"delta": {}, "finish_reason": "tool_calls"}))
    call.read(chunk(usage={"prompt_tokens": 3, "completion_tokens": 2}))
    generation = call.generation()
    assert (generation.text, generation.finish_reason) == ("", "tool_calls")
    assert generation.tool_calls == (
        ToolCall("call_1", "weather", '{"city": "Paris"}'),
        ToolCall("call_2", "time", "{}"),
    )
    assert joined([piece for delta in deltas for piece in delta.tool_calls]) == generation.tool_calls
    assert len(deltas) == 4
    assert generation.first_token_s is not None


@pytest.mark.parametrize("call", [5, {"index": "x"}, {"index": 0, "function": 5}])
def test_a_malformed_call_is_an_error(call: Any) -> None:
    with pytest.raises((AttributeError, TypeError, ValueError)):
        ChatCall(REQUEST, None).read(chunk({"delta": {"tool_calls": [call]}}))


def test_an_answer_below_the_first_is_an_error() -> None:
    call = ChatCall(replace(REQUEST, sampling=Sampling(16, n=2)), None)
    with pytest.raises(ValueError, match="-1"):
        call.read(chunk({"index": -1, "delta": {"content": "x"}}))


def test_the_pieces_of_several_answers_are_told_apart_by_their_indices() -> None:
    told: list[Delta] = []
    call = ChatCall(replace(REQUEST, sampling=Sampling(16, n=2)), told.append)
    call.read(chunk({"index": 1, "delta": {"content": "two "}}) + chunk({"index": 0, "delta": {"content": "one"}}))
    call.read(chunk({"index": 1, "delta": {"content": "words"}, "finish_reason": "length"}))
    call.read(chunk(usage={"prompt_tokens": 3, "completion_tokens": 4}))
    assert (call.made, [(delta.choice, delta.text) for delta in told]) == (3, [(1, "two "), (0, "one"), (1, "words")])
    with pytest.raises(EngineFault, match="cut off"):
        call.generation()

    call.read(chunk({"index": 0, "delta": {}, "finish_reason": "stop"}))
    generation = call.generation()
    assert (generation.text, generation.finish_reason, generation.usage) == ("one", "stop", Usage(3, 4))
    assert generation.others == (Choice("two words", "length"),)


@pytest.mark.parametrize(
    ("counts", "error", "message", "billed_tokens"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 2}, TooFewAnswers, "made 1 of 3 answers", (3, 2, 0, 0)),
        (None, EngineFault, "cut off", None),
    ],
    ids=["whole", "cut off"],
)
def test_an_api_that_makes_fewer_answers_than_asked_for_is_not_paid_for_it_again(
    counts: dict[str, int] | None, error: type[EngineError], message: str, billed_tokens: tuple[int, ...] | None
) -> None:
    call = ChatCall(replace(REQUEST, sampling=Sampling(16, n=3)), None)
    call.read(chunk({"delta": {"content": "one"}, "finish_reason": "stop"}))
    if counts is not None:
        call.read(chunk(usage=counts))
    with pytest.raises(error, match=message) as raised:
        call.generation()
    assert (raised.value.billed_tokens, raised.value.may_be_billed) == (billed_tokens, True)


@pytest.mark.parametrize(
    ("reason", "counts", "billed_tokens"),
    [
        ("content_filter", {"prompt_tokens": 3, "completion_tokens": 4}, (3, 4, 0, 0)),
        ("odd", {"prompt_tokens": 3, "completion_tokens": 4}, (3, 4, 0, 0)),
        (None, {"prompt_tokens": 3, "completion_tokens": 4}, None),
        ("content_filter", None, None),
    ],
    ids=["withheld", "odd", "cut off", "uncounted"],
)
def test_several_answers_of_which_one_is_of_no_use_are_billed_by_their_usage_if_the_call_ran_to_its_end(
    reason: str | None, counts: dict[str, int] | None, billed_tokens: tuple[int, ...] | None
) -> None:
    call = ChatCall(replace(REQUEST, sampling=Sampling(16, n=2)), None)
    call.read(chunk({"index": 0, "delta": {"content": "one"}, "finish_reason": "stop"}, service_tier="flex"))
    call.read(chunk({"index": 1, "delta": {"content": "two"}, "finish_reason": reason}))
    if counts is not None:
        call.read(chunk(usage=counts))
    with pytest.raises(EngineError) as raised:
        call.generation()
    assert raised.value.may_be_billed
    assert raised.value.billed_tokens == billed_tokens
    assert raised.value.billed_tier == ("flex" if billed_tokens else None)
