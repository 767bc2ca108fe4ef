"""What a stream's reader hears: valid in the SDK's own types, in order, numbered, and from any number on."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from api.streams.events import FROM_ANSWER, Event, ResponseEvents
from headrace.domain.answers import TokenLogprob, alternative
from headrace.domain.ids import new_id
from headrace.domain.jobs import Job, StreamEvent
from headrace.domain.prompts.tools import ToolCall, ToolCallPiece
from headrace.domain.queues import Lane, Overflow, Route
from headrace.domain.states import JobState

MADE = datetime(2026, 11, 25, 12, tzinfo=UTC)
TEXT = "Because of Rayleigh scattering."
SDK: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)

QUEUED = Job(
    id=new_id(),
    app_id=new_id(),
    state=JobState.QUEUED,
    lane=Lane.NORMAL,
    pool="chat",
    queue="chat.normal",
    route=Route.POOL,
    route_reason="test",
    overflow=Overflow.ALLOW,
    model_requested="test-model",
    model_served=None,
    metadata={"k": "v"},
    end_user=None,
    background=True,
    stream=True,
    prompt_tokens=9,
    max_tokens=64,
    output_tokens=None,
    cached_tokens=None,
    finish_reason=None,
    usd=Decimal(0),
    error_code=None,
    error_message=None,
    enqueue_no=1,
    attempt=0,
    suspicion=0,
    created_at=MADE,
    start_by=MADE + timedelta(seconds=30),
    finish_by=None,
    started_at=None,
    ended_at=None,
    cancel_requested_at=None,
    retry_of=None,
    answer=None,
    engine=None,
    price_version=None,
    is_over=False,
)
ENDED = replace(QUEUED, ended_at=MADE + timedelta(seconds=2), attempt=1)
RAN = replace(ENDED, started_at=MADE + timedelta(seconds=1), engine="simulator", model_served="served")
SUCCEEDED = replace(
    RAN,
    state=JobState.SUCCEEDED,
    answer=TEXT,
    output_tokens=7,
    cached_tokens=2,
    finish_reason="stop",
    usd=Decimal("0.00000123"),
    price_version="test-1",
)
FAILED = replace(RAN, state=JobState.FAILED, error_code="engine_fault", error_message="It broke.")
EXPIRED = replace(ENDED, state=JobState.EXPIRED, error_code="expired", error_message="It could not start.")

OPENING = ["response.created", "response.queued"]
ITEM = ["response.in_progress", "response.output_item.added", "response.content_part.added"]
DELTA = "response.output_text.delta"
THOUGHT_DELTA = "response.reasoning_text.delta"
CLOSING = ["response.output_text.done", "response.content_part.done", "response.output_item.done"]


def delta(number: int, text: str) -> StreamEvent:
    return StreamEvent(number, "delta", text)


def token(text: str) -> TokenLogprob:
    return {**alternative(text, -0.5), "top_logprobs": [alternative("é", -0.25), alternative(text, -0.5)]}


def logprobs(number: int, *tokens: TokenLogprob) -> StreamEvent:
    return StreamEvent(number, "logprobs", "".join(f"{json.dumps(each)}\n" for each in tokens))


def thought(number: int, text: str) -> StreamEvent:
    return StreamEvent(number, "reasoning", text)


def restart(number: int) -> StreamEvent:
    return StreamEvent(number, "restart", "")


WHOLE = [delta(1, "Because of "), delta(2, "Rayleigh "), delta(4, "scattering.")]


def tell(entries: Sequence[StreamEvent], ended: Job, *, job: Job = QUEUED, after: int = -1) -> list[Event]:
    """All that a reader hears who listens from the job's beginning, or who comes back after it has ended."""
    teller = ResponseEvents(job, after=after)
    return [*teller.opening(), *teller.more(entries), *teller.ending(ended)]


def kinds(events: Sequence[Event]) -> list[str]:
    return [event["type"] for event in events]


def numbers(events: Sequence[Event]) -> list[int]:
    return [event["sequence_number"] for event in events]


def heard(events: Sequence[Event], kind: str = DELTA) -> str:
    """The text of a reader who does as he is told."""
    text = ""
    for event in events:
        if event["type"] == "error":
            text = ""
        if event["type"] == kind:
            text += event["delta"]
    return text


def test_an_answer_is_told_from_its_acceptance_to_its_end() -> None:
    events = tell(WHOLE, SUCCEEDED)
    assert kinds(events) == [*OPENING, *ITEM, DELTA, DELTA, DELTA, *CLOSING, "response.completed"]
    assert numbers(events) == list(range(12))
    assert heard(events) == TEXT
    assert events[8]["text"] == TEXT
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == TEXT
    assert [events[i]["response"]["status"] for i in (0, 1, 2, -1)] == ["queued", "queued", "in_progress", "completed"]


TOKENS = [token(text) for text in ("Because", " of ", "Rayleigh ", "scattering", ".", "<|im_end|>")]
MEASURED = replace(SUCCEEDED, logprobs=TOKENS)
MEASURED_WHOLE = [
    *(logprobs(1, *TOKENS[:2]), delta(2, "Because of ")),
    *(logprobs(3, TOKENS[2]), delta(4, "Rayleigh "), logprobs(5, *TOKENS[3:5]), delta(6, "scattering.")),
]

THOUGHT = "Light, air and blue. So: "
THOUGHTFUL = replace(SUCCEEDED, reasoning=THOUGHT, reasoning_tokens=4)
#: As `publish_stream.lua` numbers them: five are left out where reasoning begins or ends.
THOUGHTFUL_WHOLE = [
    *(thought(7, "Light, air "), thought(8, "and blue. "), thought(9, "So: ")),
    *(delta(15, "Because of "), delta(16, "Rayleigh "), delta(17, "scattering.")),
]

CALLS = (ToolCall("call_1", "weather", '{"city": "Paris"}'), ToolCall("call_2", "time", "{}"))
CALLED = replace(SUCCEEDED, answer="", tool_calls=CALLS, finish_reason="tool_calls")
SAID_AND_CALLED = replace(CALLED, answer=TEXT)
CALL_DELTA = "response.function_call_arguments.delta"


def called(number: int, piece: ToolCallPiece) -> StreamEvent:
    return StreamEvent(number, "tool_call", json.dumps(asdict(piece)))


def calls_from(number: int) -> list[StreamEvent]:
    """The pieces of the calls, numbered as in Redis."""
    pieces = [
        ToolCallPiece(0, "call_1", "weather"),
        ToolCallPiece(0, arguments='{"city": "Par'),
        ToolCallPiece(0, arguments='is"}'),
        ToolCallPiece(1, "call_2", "time", "{}"),
    ]
    return [called(number + 6 * no, piece) for no, piece in enumerate(pieces)]


STORIES: dict[str, tuple[list[StreamEvent], Job]] = {
    "whole": (WHOLE, SUCCEEDED),
    "suffix missing": (WHOLE[:2], SUCCEEDED),
    "measured": (MEASURED_WHOLE, MEASURED),
    "measured, suffix missing": (MEASURED_WHOLE[:3], MEASURED),
    "measured, nothing in Redis": ([], MEASURED),
    "measured, restarted": (
        [
            *(logprobs(1, token("Since")), delta(2, "Since"), logprobs(3, token(" light")), restart(4)),
            *(replace(entry, number=entry.number + 4) for entry in MEASURED_WHOLE),
        ],
        MEASURED,
    ),
    "measured, another text": ([logprobs(1, token("Since")), delta(2, "Since")], MEASURED),
    "nothing in Redis": ([], SUCCEEDED),
    "restarted": ([delta(1, "Since"), restart(2), *[delta(n + 2, e.text) for n, e in enumerate(WHOLE, 1)]], SUCCEEDED),
    "another text": ([delta(1, "Since light")], SUCCEEDED),
    "thoughtful": (THOUGHTFUL_WHOLE, THOUGHTFUL),
    "thoughtful, cut in the answer": (THOUGHTFUL_WHOLE[:4], THOUGHTFUL),
    "thoughtful, cut in the reasoning": (THOUGHTFUL_WHOLE[:2], THOUGHTFUL),
    "thoughtful, nothing in Redis": ([], THOUGHTFUL),
    "thoughtful, restarted in the reasoning": (
        [
            *(thought(7, "Since"), restart(8)),
            *(replace(entry, number=entry.number + 7) for entry in THOUGHTFUL_WHOLE),
        ],
        THOUGHTFUL,
    ),
    "thoughtful, restarted in the answer": (
        [
            *(thought(7, "Since"), delta(13, "Since"), restart(14)),
            *(replace(entry, number=entry.number + 13) for entry in THOUGHTFUL_WHOLE),
        ],
        THOUGHTFUL,
    ),
    "thoughtful, restarted without": (
        [
            *(thought(7, "Since"), restart(8)),
            *(delta(14, "Because of "), delta(15, "Rayleigh "), delta(16, "scattering.")),
        ],
        SUCCEEDED,
    ),
    "thoughtful, restarted in the answer, without": (
        [
            *(thought(7, "Since"), delta(13, "Since"), restart(14)),
            *(delta(20, "Because of "), delta(21, "Rayleigh "), delta(22, "scattering.")),
        ],
        SUCCEEDED,
    ),
    "restarted, then thoughtful": (
        [*(delta(2, "Since"), restart(3)), *(replace(entry, number=entry.number + 2) for entry in THOUGHTFUL_WHOLE)],
        THOUGHTFUL,
    ),
    "thoughtful, another text": ([thought(7, THOUGHT), delta(13, "Since")], THOUGHTFUL),
    "thoughtful, other thoughts": ([thought(7, "Since")], THOUGHTFUL),
    "thoughtful, thoughts missing before the text": ([delta(2, "Because of ")], THOUGHTFUL),
    "thoughtful and measured": (
        [*THOUGHTFUL_WHOLE[:3], *(replace(entry, number=entry.number + 14) for entry in MEASURED_WHOLE)],
        replace(THOUGHTFUL, logprobs=TOKENS),
    ),
    "no more than thoughts": (THOUGHTFUL_WHOLE[:3], replace(THOUGHTFUL, answer="", finish_reason="length")),
    "thoughtful, cancelled": (
        THOUGHTFUL_WHOLE[:2],
        replace(RAN, state=JobState.CANCELLED, answer="", reasoning=THOUGHT, output_tokens=3),
    ),
    "thoughtful, failed": (THOUGHTFUL_WHOLE[:2], FAILED),
    "calls": (calls_from(7), CALLED),
    "calls, cut in the arguments": (calls_from(7)[:2], CALLED),
    "calls, nothing in Redis": ([], CALLED),
    "calls after a text": ([*WHOLE, *calls_from(10)], SAID_AND_CALLED),
    "calls after a text, cut in the text": (WHOLE[:2], SAID_AND_CALLED),
    "calls after thoughts": ([*THOUGHTFUL_WHOLE[:3], *calls_from(20)], replace(CALLED, reasoning=THOUGHT)),
    "calls after thoughts, cut in the thoughts": (THOUGHTFUL_WHOLE[:2], replace(CALLED, reasoning=THOUGHT)),
    "calls, restarted": (
        [*(called(7, ToolCallPiece(0, "call_9", "time", "{")), restart(8)), *calls_from(14)],
        CALLED,
    ),
    "calls, other ones in the end": ([called(7, ToolCallPiece(0, "call_9", "time", "{"))], CALLED),
    "calls, cut at the limit": (calls_from(7), replace(CALLED, finish_reason="length")),
    "empty answer": ([], replace(SUCCEEDED, answer="")),
    "cut": (WHOLE, replace(SUCCEEDED, finish_reason="length")),
    "failed while it was told": (WHOLE[:1], FAILED),
    "failed before a word": ([], FAILED),
    "expired": ([], EXPIRED),
    "cancelled while queued": ([], replace(ENDED, state=JobState.CANCELLED)),
    "cancelled with a part": (WHOLE[:2], replace(RAN, state=JobState.CANCELLED, answer=TEXT[:20], output_tokens=3)),
}


@pytest.fixture(params=STORIES, ids=lambda name: name.replace(" ", "_"))
def story(request: pytest.FixtureRequest) -> tuple[list[StreamEvent], Job]:
    return STORIES[request.param]


def test_every_event_is_valid_in_the_sdks_types(story: tuple[list[StreamEvent], Job]) -> None:
    for event in tell(*story):
        parsed = SDK.validate_json(json.dumps(event), strict=True)
        assert (parsed.type, parsed.sequence_number) == (event["type"], event["sequence_number"])
        # The SDK raises on such a key.
        assert not event.get("error")


def test_the_numbers_of_a_stream_are_consecutive(story: tuple[list[StreamEvent], Job]) -> None:
    """But for one gap, before what the stream lacks."""
    told = numbers(tell(*story))
    of_stream = [number for number in told if number < FROM_ANSWER]
    assert of_stream == list(range(len(of_stream)))
    assert told[len(of_stream) :] == [FROM_ANSWER + 1 + place for place in range(len(told) - len(of_stream))]


def test_numbers_jump_once_where_redis_lost_the_beginning_and_readers_agree_on_them() -> None:
    lost = [restart(1_000_001), *(replace(entry, number=entry.number + 1_000_006) for entry in WHOLE)]
    teller = ResponseEvents(QUEUED)
    heard_before = [*teller.opening(), *teller.more(WHOLE[:2])]
    stayed = [*teller.more(lost), *teller.ending(SUCCEEDED)]
    came_later = tell(lost, SUCCEEDED)

    assert numbers(heard_before) == list(range(7))
    assert numbers(stayed) == sorted(set(numbers(stayed)))
    assert numbers(stayed)[0] > 1_000_000
    # What came later is told alike, so that either can go on where the other was.
    common = [event for event in stayed if event in came_later]
    assert kinds(common) == [DELTA, DELTA, DELTA, *CLOSING, "response.completed"]
    for event in common:
        after = event["sequence_number"]
        assert tell(lost, SUCCEEDED, after=after) == [each for each in common if each["sequence_number"] > after]


def test_the_text_heard_is_the_text_stored(story: tuple[list[StreamEvent], Job]) -> None:
    entries, ended = story
    if ended.answer is not None:
        assert heard(tell(entries, ended)) == ended.answer
        assert heard(tell(entries, ended), THOUGHT_DELTA) == (ended.reasoning or "")


def test_items_are_begun_and_ended_in_order_and_told_as_they_are_in_the_end(
    story: tuple[list[StreamEvent], Job],
) -> None:
    told = tell(*story)
    ends = [event for event in told if event["type"] == "response.output_item.done"]
    output = told[-1]["response"]["output"]
    assert [event["item"] for event in ends][-len(output) :] == output
    if "error" not in kinds(told):
        assert [event["output_index"] for event in ends][-len(output) :] == list(range(len(output)))
    places: dict[int, str] = {}
    for event in told:
        if event["type"] == "response.output_item.added":
            assert event["output_index"] == len(places)
            places[event["output_index"]] = event["item"]["id"]
        elif "content_index" in event:
            assert event["item_id"] == places[event["output_index"]]


def test_the_sdks_own_helper_takes_it_all_in(story: tuple[list[StreamEvent], Job]) -> None:
    helper = ResponseStreamState(input_tools=omit, text_format=omit)
    for event in tell(*story):
        helper.handle_event(SDK.validate_json(json.dumps(event)))


def test_what_is_thought_is_an_item_before_the_answer() -> None:
    events = tell(THOUGHTFUL_WHOLE, THOUGHTFUL)
    thinking = [*([THOUGHT_DELTA] * 3), "response.reasoning_text.done", *CLOSING[1:]]
    assert kinds(events) == [*OPENING, *ITEM, *thinking, *ITEM[1:], *([DELTA] * 3), *CLOSING, "response.completed"]
    assert numbers(events) == list(range(len(events)))
    reasoning, message = events[-1]["response"]["output"]
    assert (reasoning["content"], reasoning["status"]) == ([{"type": "reasoning_text", "text": THOUGHT}], "completed")
    assert (message["content"][0]["text"], events[8]["text"]) == (TEXT, THOUGHT)
    assert events[-1]["response"]["usage"]["output_tokens_details"] == {"reasoning_tokens": 4}


def test_what_was_not_thought_out_says_so() -> None:
    *_, last = tell(*STORIES["no more than thoughts"])
    reasoning, message = last["response"]["output"]
    assert (last["type"], reasoning["status"], message["status"]) == (
        "response.incomplete",
        "incomplete",
        "incomplete",
    )


def heard_logprobs(events: Sequence[Event]) -> list[TokenLogprob]:
    tokens: list[TokenLogprob] = []
    for event in events:
        if event["type"] == "error":
            tokens = []
        elif event["type"] == DELTA:
            tokens += event["logprobs"]
    return tokens


def test_the_log_probabilities_heard_are_those_stored(story: tuple[list[StreamEvent], Job]) -> None:
    entries, ended = story
    events = tell(entries, ended)
    assert heard_logprobs(events) == (ended.logprobs or [])
    for event in events:
        if event["type"] == "response.output_text.done":
            assert event["logprobs"] == (ended.logprobs or [])


def test_each_delta_has_the_log_probabilities_of_its_tokens() -> None:
    deltas = [event for event in tell(MEASURED_WHOLE, MEASURED) if event["type"] == DELTA]
    assert [event["logprobs"] for event in deltas] == [TOKENS[:2], TOKENS[2:3], TOKENS[3:5], TOKENS[5:]]


def test_whoever_comes_back_hears_exactly_the_rest(story: tuple[list[StreamEvent], Job]) -> None:
    """Where the stream lacks nothing: else see `test_whoever_comes_back_to_less_or_to_more...`."""
    entries, ended = story
    whole = tell(entries, ended)
    *_, before_last, last = numbers(whole)
    for after in numbers(whole)[:-1]:
        rest = tell(entries, ended, job=ended, after=after)
        if after < FROM_ANSWER:
            assert rest == [event for event in whole if event["sequence_number"] > after]
    if last < FROM_ANSWER and ended.answer is not None:
        assert tell(entries, ended, job=ended, after=last) == []
        assert heard(tell(entries, ended, job=ended, after=last + 1)) == ended.answer
    else:
        assert before_last < last < min(numbers(tell(entries, ended, job=ended, after=last)))


def views(entries: Sequence[StreamEvent], ended: Job) -> list[tuple[list[StreamEvent], Job]]:
    """What Redis may have of a stream: its first entries, perhaps with what the next claim makes of them."""
    lengths = {0, 1, len(entries) // 2, len(entries) - 1, len(entries)} & set(range(len(entries) + 1))
    seen = [(list(entries[:length]), ended) for length in sorted(lengths)]
    if entries is WHOLE and ended is SUCCEEDED:
        for had in (1, 2):
            begun = [*WHOLE[:had], StreamEvent(1_000_001, "begin", "")]
            text = "".join(entry.text for entry in WHOLE[:had])
            seen.append((begun, said(text)))
            seen.append(
                ([*begun, delta(1_000_002, "Mie "), delta(1_000_003, "scattering.")], said(f"{text}Mie scattering."))
            )
        seen.append(([restart(1_000_001), delta(1_000_007, "Since")], said("Since")))
    return seen


def said(answer: str) -> Job:
    return replace(SUCCEEDED, answer=answer, enqueue_no=2)


@pytest.mark.parametrize(
    "name",
    [
        *("whole", "thoughtful", "thoughtful, restarted in the answer", "measured", "another text", "restarted"),
        *("empty answer", "no more than thoughts", "cut", "failed while it was told", "calls after a text"),
    ],
)
def test_whoever_comes_back_to_less_or_to_more_of_a_stream_has_the_stored_answer_in_the_end(name: str) -> None:
    """A replica that is promoted may lack entries that were told; or they were not read as the job ended."""
    entries, ended = STORIES[name]
    for had, heard_of in views(entries, ended):
        for has, ends in views(entries, ended):
            if heard_of == ends:
                known = tell(had, ends)
            elif had and had[-1].number > 1_000_000:
                continue  # No older claim ends a job of which a later one has told.
            else:
                teller = ResponseEvents(QUEUED)
                known = [*teller.opening(), *teller.more(had)]
            for place, event in enumerate(known):
                after = event["sequence_number"]
                rest = tell(has, ends, job=ends, after=after)
                both, case = [*known[: place + 1], *rest], (had, has, after)
                assert numbers(both) == sorted(set(numbers(both))), case
                assert rest or place + 1 == len(known), case
                if ends.answer is not None:
                    assert heard(both) == ends.answer, case
                    assert heard(both, THOUGHT_DELTA) == (ends.reasoning or ""), case


def test_the_past_is_told_as_it_was() -> None:
    created = tell(WHOLE, SUCCEEDED, job=SUCCEEDED)[0]["response"]
    assert created == tell(WHOLE, SUCCEEDED)[0]["response"]
    assert (created["status"], created["output"], created["usage"], created["error"]) == ("queued", [], None, None)
    assert (created["job"]["cost"]["usd"], created["job"]["attempts"]) == ("0", 0)


def test_a_job_that_never_ran_ends_without_progress() -> None:
    assert kinds(tell([], EXPIRED)) == [*OPENING, "response.failed"]
    assert numbers(tell([], EXPIRED)) == [0, 1, 2]


def test_a_job_that_fails_before_a_word_has_no_item() -> None:
    assert kinds(tell([], FAILED)) == [*OPENING, "response.in_progress", "response.failed"]


def test_a_cancelled_response_is_told_as_incomplete() -> None:
    last = tell([], replace(ENDED, state=JobState.CANCELLED))[-1]
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "cancelled")


def test_a_cut_answer_is_incomplete() -> None:
    last = tell(*STORIES["cut"])[-1]
    assert (last["type"], last["response"]["incomplete_details"]["reason"]) == (
        "response.incomplete",
        "max_output_tokens",
    )


def test_a_missing_suffix_is_one_more_delta() -> None:
    events = tell(WHOLE[:2], SUCCEEDED)
    assert (events[7]["delta"], events[7]["sequence_number"]) == ("scattering.", FROM_ANSWER + 1)


@pytest.mark.parametrize(
    ("name", "number"),
    [("restarted", 6), ("another text", FROM_ANSWER + 1)],
    ids=["in_the_stream", "against_the_answer"],
)
def test_a_text_that_began_again_is_told_as_an_error(name: str, number: int) -> None:
    events = tell(*STORIES[name])
    error = next(event for event in events if event["type"] == "error")
    assert (error["code"], error["sequence_number"], error["param"]) == ("stream_restarted", number, None)


def test_a_restart_means_nothing_to_whoever_heard_no_text() -> None:
    assert "error" not in kinds(tell([restart(1), delta(2, TEXT)], SUCCEEDED))


def test_a_restart_is_told_to_whoever_heard_what_redis_forgot() -> None:
    events = tell([restart(2_000_001), delta(2_000_002, TEXT)], SUCCEEDED, job=RUNNING, after=7)
    assert kinds(events)[:2] == ["error", DELTA]


RUNNING = replace(QUEUED, state=JobState.RUNNING, started_at=MADE, attempt=1)


def test_a_job_that_runs_already_is_told_so_at_once() -> None:
    assert kinds(list(ResponseEvents(RUNNING).opening())) == [*OPENING, "response.in_progress"]


def test_an_interruption_says_where_to_resume() -> None:
    teller = ResponseEvents(QUEUED)
    told = [*teller.opening(), *teller.more(WHOLE[:1])]
    (error,) = teller.interrupted()
    assert (error["type"], error["code"], error["sequence_number"]) == ("error", "stream_interrupted", 5)
    assert "starting_after=5" in error["message"]
    assert SDK.validate_python(error)
    assert told[-1]["sequence_number"] == 5


def test_calls_are_items_that_are_begun_filled_and_ended() -> None:
    events = tell(calls_from(7), CALLED)
    ends = ["response.function_call_arguments.done", "response.output_item.done"]
    assert kinds(events) == [
        *OPENING,
        *(*ITEM[:2], CALL_DELTA, CALL_DELTA, *ends),
        *(ITEM[1], CALL_DELTA, *ends),
        "response.completed",
    ]
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [(item["call_id"], item["name"], item["arguments"]) for item in items] == [
        ("call_1", "weather", '{"city": "Paris"}'),
        ("call_2", "time", "{}"),
    ]
    assert heard(events, CALL_DELTA) == '{"city": "Paris"}{}'


@pytest.mark.parametrize("name", [name for name in STORIES if name.startswith("calls")])
def test_the_calls_heard_are_the_calls_stored(name: str) -> None:
    entries, ended = STORIES[name]
    made: dict[str, str] = {}
    for event in tell(entries, ended):
        if event["type"] == "error":
            made.clear()
        elif event["type"] == CALL_DELTA:
            made[event["item_id"]] = made.get(event["item_id"], "") + event["delta"]
    assert list(made.values()) == [call.arguments for call in CALLS]


def test_text_after_a_call_goes_on_with_the_message_which_is_ended_again() -> None:
    entries = [delta(2, "Because of "), called(8, ToolCallPiece(0, "c", "f", "{}")), delta(14, "Rayleigh scattering.")]
    ended = replace(CALLED, answer=TEXT, tool_calls=(ToolCall("c", "f", "{}"),))
    events = tell(entries, ended)
    assert heard(events) == TEXT
    assert [event["text"] for event in events if event["type"] == CLOSING[0]] == ["Because of ", TEXT]
    done = [event["item"]["id"] for event in events if event["type"] == "response.output_item.done"]
    assert [each.partition("_")[0] for each in done] == ["msg", "fc", "msg"]
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["message", "function_call"]


@pytest.mark.parametrize("entries", [calls_from(7), [*WHOLE, *calls_from(10)]], ids=["calls", "text_and_calls"])
def test_a_reader_who_comes_back_hears_each_later_event_of_calls_once(entries: list[StreamEvent]) -> None:
    ended = CALLED if len(entries) == 4 else SAID_AND_CALLED
    whole = tell(entries, ended)
    for event in whole[:-1]:
        after = event["sequence_number"]
        assert tell(entries, ended, after=after) == whole[after + 1 :]
    # Where Redis lost the beginning, numbers follow from those of the entries.
    lost = [restart(1_000_001), *(replace(entry, number=entry.number + 1_000_001) for entry in entries)]
    told = numbers(tell(lost, ended))
    assert told == sorted(set(told))
