"""What a chat stream's reader hears: chunks that are valid in the SDK's own types, and the end or an error."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace

import pytest
from openai.types.chat import ChatCompletionChunk

from api.schemas.chat import UsageIn
from api.streams.chunks import DONE, ChatChunks, CompletionChunks
from api.streams.events import Event
from headrace.domain.answers import Choice
from headrace.domain.jobs import Job, StreamEvent
from headrace.domain.prompts.tools import ToolCall, ToolCallPiece
from headrace.domain.states import JobState
from tests.unit.api.streams.test_events import (
    ENDED,
    EXPIRED,
    FAILED,
    MEASURED,
    MEASURED_WHOLE,
    QUEUED,
    SUCCEEDED,
    TEXT,
    THOUGHT,
    THOUGHTFUL,
    THOUGHTFUL_WHOLE,
    TOKENS,
    WHOLE,
    delta,
    restart,
    thought,
)


def chat(entries: Sequence[StreamEvent], ended: Job, *, usage_in: UsageIn | None = None) -> list[Event | str]:
    teller = ChatChunks(QUEUED, usage_in=usage_in)
    events: list[Event | str] = [*teller.opening(), *teller.more(entries)]
    return events if teller.is_over else [*events, *teller.ending(ended)]


def chunks(events: Sequence[Event | str]) -> Iterator[ChatCompletionChunk]:
    for event in events:
        if not isinstance(event, str):
            yield ChatCompletionChunk.model_validate(event)


def content(events: Sequence[Event | str]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks(events) for choice in chunk.choices)


@pytest.mark.parametrize("entries", [WHOLE, WHOLE[:1], []], ids=["whole", "suffix_missing", "nothing_in_redis"])
def test_a_chat_completion_is_told_in_chunks(entries: list[StreamEvent]) -> None:
    events = chat(entries, SUCCEEDED)
    told = list(chunks(events))
    assert events[-1] == DONE
    assert content(events) == TEXT
    assert told[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in told] == [None] * (len(told) - 1) + ["stop"]
    assert {chunk.id for chunk in told} == {f"chatcmpl-{QUEUED.id.hex}"}
    assert all(chunk.usage is None for chunk in told)


@pytest.mark.parametrize("count", [6, 4, 3, 0])
def test_a_chat_completion_s_chunks_have_the_log_probabilities_of_their_tokens(count: int) -> None:
    events = chat(MEASURED_WHOLE[:count], MEASURED)
    assert content(events) == TEXT
    told = [choice.logprobs for chunk in chunks(events) for choice in chunk.choices if choice.logprobs]
    assert [each.model_dump() for logprobs in told for each in logprobs.content or ()] == TOKENS
    assert all(choice.logprobs is None for chunk in chunks(chat(WHOLE, SUCCEEDED)) for choice in chunk.choices)


@pytest.mark.parametrize("count", [6, 4, 3, 2, 0])
def test_what_is_thought_comes_before_the_content(count: int) -> None:
    told = [chunk.choices[0].delta.model_dump() for chunk in chunks(chat(THOUGHTFUL_WHOLE[:count], THOUGHTFUL))]
    assert "".join(each.get("reasoning", "") for each in told) == THOUGHT
    assert "".join(each["content"] or "" for each in told) == TEXT
    kinds = ["reasoning" in each for each in told[1:]]
    assert kinds == sorted(kinds, reverse=True)


def test_usage_is_the_last_chunk_where_it_was_asked_for() -> None:
    *_, finish, usage = chunks(chat(WHOLE, SUCCEEDED, usage_in="end"))
    assert finish.choices[0].finish_reason == "stop"
    assert usage.choices == []
    assert usage.usage is not None
    assert (usage.usage.prompt_tokens, usage.usage.completion_tokens, usage.usage.total_tokens) == (9, 7, 16)


def used(events: Sequence[Event | str]) -> list[int | None]:
    """The answer's tokens, by each chunk."""
    usages = [event.get("usage") for event in events if isinstance(event, dict)]
    assert all(usage["total_tokens"] == 9 + usage["completion_tokens"] for usage in usages if usage)
    return [usage and usage["completion_tokens"] for usage in usages]


COUNTED = [replace(entry, tokens=tokens) for entry, tokens in zip(WHOLE, (2, 4, 6), strict=True)]


def test_each_chunk_has_the_tokens_so_far_where_they_were_asked_for() -> None:
    assert used(chat(COUNTED, SUCCEEDED, usage_in="chunks"))[-5:] == [2, 4, 6, 7, 7]
    assert used(chat(COUNTED, SUCCEEDED, usage_in="end"))[-5:] == [None, None, None, None, 7]


def test_a_chunk_has_no_usage_where_the_engine_does_not_count() -> None:
    assert used(chat(WHOLE, SUCCEEDED, usage_in="chunks"))[-5:] == [None, None, None, 7, 7]


def test_the_tokens_of_each_answer_are_counted_apart() -> None:
    second = StreamEvent(5, "delta", "Air scatters it.", 1, 4)
    teller = ChatChunks(TWICE, usage_in="chunks")
    events = [*teller.opening(), *teller.more([*COUNTED, second]), *teller.ending(TWICE_ANSWERED)]
    assert used(events)[-3:] == [6, 4, 7]


def test_the_chunks_of_a_completion_have_the_tokens_so_far_too() -> None:
    teller = CompletionChunks(QUEUED, usage_in="chunks")
    assert used([*teller.opening(), *teller.more(COUNTED), *teller.ending(SUCCEEDED)]) == [2, 4, 6, 7, 7]


TWICE = replace(QUEUED, n=2)
TWICE_ANSWERED = replace(SUCCEEDED, n=2, others=(Choice("Air scatters it.", "length"),))


@pytest.mark.parametrize("count", [5, 4, 2, 0])
def test_several_answers_are_told_by_their_indices(count: int) -> None:
    second = [StreamEvent(3, "delta", "Air ", 1), StreamEvent(5, "delta", "scatters it.", 1)]
    entries = sorted([*WHOLE, *second], key=lambda entry: entry.number)[:count]
    teller = ChatChunks(TWICE, usage_in="end")
    events = [*teller.opening(), *teller.more(entries), *teller.ending(TWICE_ANSWERED)]
    told = [choice for chunk in chunks(events) for choice in chunk.choices]
    for index, (text, reason) in enumerate([(TEXT, "stop"), ("Air scatters it.", "length")]):
        of_one = [choice for choice in told if choice.index == index]
        assert of_one[0].delta.role == "assistant"
        assert "".join(choice.delta.content or "" for choice in of_one) == text
        assert [choice.finish_reason for choice in of_one if choice.finish_reason] == [reason]
    assert events[-1] == DONE
    assert [chunk.usage is not None for chunk in chunks(events)][-1]


def test_a_restart_makes_every_answer_void() -> None:
    teller = ChatChunks(TWICE)
    [_, _, last] = teller.more([StreamEvent(1, "delta", "Air ", 1), restart(2)])
    assert last["error"]["code"] == "stream_restarted"


def test_each_answer_of_a_completion_has_its_echo_and_its_index() -> None:
    teller = CompletionChunks(TWICE, echoed="Why? ")
    events = [*teller.opening(), *teller.more([StreamEvent(3, "delta", "Air ", 1)]), *teller.ending(TWICE_ANSWERED)]
    told = [choice for event in events if isinstance(event, dict) for choice in event["choices"]]
    texts = ["".join(choice["text"] for choice in told if choice["index"] == index) for index in (0, 1)]
    assert texts == [f"Why? {TEXT}", "Why? Air scatters it."]


def test_a_cut_chat_completion_says_length() -> None:
    *_, finish = chunks(chat(WHOLE, replace(SUCCEEDED, finish_reason="length")))
    assert finish.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("tell_it", "code"),
    [
        (lambda: chat(WHOLE[:1], FAILED), "engine_fault"),
        (lambda: chat([], EXPIRED), "expired"),
        (lambda: chat([], replace(ENDED, state=JobState.CANCELLED)), "job_cancelled"),
        (lambda: chat([delta(1, "Since"), restart(2), delta(3, TEXT)], SUCCEEDED), "stream_restarted"),
        (lambda: chat([delta(1, "Since")], SUCCEEDED), "stream_restarted"),
        (lambda: chat([thought(7, "Since"), restart(8), delta(14, TEXT)], SUCCEEDED), "stream_restarted"),
        (lambda: chat([thought(7, "Since")], THOUGHTFUL), "stream_restarted"),
    ],
    ids=["failed", "expired", "cancelled", "restarted", "another_text", "restarted_thoughts", "other_thoughts"],
)
def test_a_chat_completion_that_fails_ends_with_an_error(tell_it: Callable[[], list[Event | str]], code: str) -> None:
    last = tell_it()[-1]
    assert isinstance(last, dict)
    assert set(last) == {"error"}
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert last["error"]["code"] == code


CALLS = (ToolCall("call_1", "weather", '{"city": "Paris"}'), ToolCall("call_2", "time", "{}"))
CALLED = replace(SUCCEEDED, answer="", tool_calls=CALLS, finish_reason="tool_calls")
#: The stream of these calls, as a worker publishes it.
PIECES = [
    ToolCallPiece(0, "call_1", "weather"),
    ToolCallPiece(0, arguments='{"city": "Par'),
    ToolCallPiece(0, arguments='is"}'),
    ToolCallPiece(1, "call_2", "time", "{}"),
]


def called(number: int, piece: ToolCallPiece) -> StreamEvent:
    return StreamEvent(number, "tool_call", json.dumps(asdict(piece)))


@pytest.mark.parametrize("count", range(5))
def test_calls_are_told_piece_by_piece_and_the_rest_at_the_end(count: int) -> None:
    events = chat([called(number, piece) for number, piece in enumerate(PIECES[:count], 1)], CALLED)
    told = list(chunks(events))
    pieces = [call for chunk in told for call in chunk.choices[0].delta.tool_calls or ()]
    for index, call in enumerate(CALLS):
        of_call = [piece for piece in pieces if piece.index == index]
        assert [piece.id for piece in of_call if piece.id] == [call.id]
        assert [piece.function.name for piece in of_call if piece.function and piece.function.name] == [call.name]
        assert "".join(piece.function.arguments or "" for piece in of_call if piece.function) == call.arguments
    assert content(events) == ""
    assert told[-1].choices[0].finish_reason == "tool_calls"


def test_other_calls_than_those_told_end_the_stream() -> None:
    events = chat([called(1, ToolCallPiece(0, "call_9", "weather"))], CALLED)
    assert isinstance(events[-1], dict)
    assert events[-1]["error"]["code"] == "stream_restarted"


def test_a_restart_makes_calls_void() -> None:
    teller = ChatChunks(QUEUED)
    list(teller.more([called(1, PIECES[0]), restart(2)]))
    assert teller.is_over
