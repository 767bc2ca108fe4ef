import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace.domain.answers import Choice
from headrace.domain.attempts import Usage
from headrace.domain.limits import ProviderRate
from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.tools import ToolCall, joined
from headrace.errors import EngineError, EngineFault, TooFewAnswers
from workers.engines.base import Delta, GenerationRequest
from workers.engines.openai.stream import PATIENCE_S, ChatCall, rates, retry_after_s


def headers(kind: str, limit: str, left: str, reset: str) -> dict[str, str]:
    values = {"limit": limit, "remaining": left, "reset": reset}
    return {f"x-ratelimit-{name}-{kind}": value for name, value in values.items()}


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("12ms", 0.012),
        ("1m26.4s", 86.4),
        ("2h3m", 7380),
        ("1d", 86_400),
        ("0s", 0),
        ("30", 30),
        ("0.5", 0.5),
        ("1795656243", 86_400),
        ("1e300", 86_400),
        ("9" * 400 + "s", 86_400),
    ],
)
def test_times_are_read_as_providers_write_them(reset: str, seconds: float) -> None:
    found = rates(headers("requests", "500", "499", reset))
    assert found is not None
    assert found.requests is not None
    assert found.requests.full_in_s == pytest.approx(seconds)


def test_both_rates_are_read() -> None:
    found = rates(headers("requests", "500", "480", "2s") | headers("tokens", "30000", "0", "60s"))
    assert found is not None
    assert (found.requests, found.tokens) == (ProviderRate(500, 480, 2), ProviderRate(30_000, 0, 60))


@pytest.mark.parametrize(
    "said",
    [
        {},
        headers("requests", "500", "499", "soon"),
        headers("requests", "500", "499", ""),
        headers("requests", "500", "499", "-1"),
        headers("requests", "500", "499", "inf"),
        headers("requests", "many", "499", "1s"),
        headers("requests", "0", "0", "1s"),
        headers("requests", "9" * 400, "1", "1s"),
        headers("requests", "500", "499", "nan"),
        headers("requests", "-1", "-1", "1s"),
        {"x-ratelimit-limit-requests": "500"},
    ],
)
def test_what_is_not_said_or_makes_no_sense_is_not_known(said: dict[str, str]) -> None:
    assert rates(said) is None


@pytest.mark.parametrize(("left", "read"), [("-3", 0), ("900", 500)])
def test_what_is_left_lies_between_nothing_and_the_limit(left: str, read: int) -> None:
    found = rates(headers("requests", "500", left, "1s"))
    assert found is not None
    assert found.requests is not None
    assert found.requests.left == read


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "100000"}, PATIENCE_S),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7),
        ({"retry-after-ms": "nan", "retry-after": "7"}, 7),
    ],
)
def test_retry_after_is_bounded(said: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(said) == seconds


IMF_FIXDATE, RFC_850, ASCTIME = "%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"


@pytest.mark.parametrize("form", [IMF_FIXDATE, RFC_850, ASCTIME])
@pytest.mark.parametrize(("from_now_s", "seconds"), [(30, 30), (3600, PATIENCE_S), (-3600, 0)])
def test_retry_after_may_be_a_date_in_each_of_the_three_forms(form: str, from_now_s: int, seconds: float) -> None:
    date = (datetime.now(UTC) + timedelta(seconds=from_now_s)).strftime(form)
    assert retry_after_s({"retry-after": date}) == pytest.approx(seconds, abs=2)


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Fri, 31 Dec 9999 23:59:59 GMT", PATIENCE_S),
        ("Fri, 31 Dec 9999 23:59:59 -1200", PATIENCE_S),
        ("Fri, 31 Dec 9999 23:59:59", PATIENCE_S),
        ("Mon, 01 Jan 0001 00:00:00 GMT", 0),
        ("Tue, 31 Feb 2026 00:00:00 GMT", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 +2400", None),
        ("Fri, 31 Dec 9999 23:59:59 +" + "9" * 30, None),
        ("Fri, 31 Dec 9999", None),
    ],
)
def test_a_date_is_bounded_and_one_that_makes_no_sense_is_not_known(date: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": date}) == seconds


# What is read of a stream's bytes.

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
