"""A job's stream as numbered events of the Responses API.

Pure: the caller brings the job and the entries of its stream. This module knows neither bytes nor waiting.

Events are numbered one by one. Every reader gets the same events, made from the entries of the whole stream. So a
reader that resumes after the last number it saw gets every later event once.

A reader that resumes says nothing of what it has but a number, so a number must never stand for two things. Redis may
have lost entries after readers got them: all of them, or the last ones, which a promoted replica never had. So:

- the events of a later claim have the numbers of their entries, which no older claim can have reached;
- what comes from the stored answer, because the stream lacks it, has numbers that no entry can reach (`FROM_ANSWER`);
- a reader whose number the stream does not reach, or passes over, has text that is unknown here. It gets no more of
  the stream, but `stream_restarted` and the whole answer: where a claim begins anew, or at the job's end.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import count
from typing import Any, Literal

from api.door.drafts import Accepted
from api.schemas.logprobs import Fragments
from api.schemas.response_body import (
    FunctionCallItem,
    OutputMessage,
    OutputText,
    ReasoningItem,
    ReasoningText,
    ResponseBody,
    call_item_id,
)
from headrace.domain.answers import Choice, StoredLogprobs, TokenLogprob
from headrace.domain.ids import show_id
from headrace.domain.jobs import NUMBERS_PER_CLAIM, Job, StreamEvent
from headrace.domain.prompts.tools import ToolCall, ToolCallPiece, joined, rest_of
from headrace.domain.states import JobState


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a model's output: its text, with the log probabilities of its tokens, its reasoning, or its calls."""

    text: str = ""
    logprobs: Sequence[TokenLogprob] = ()
    reasoning: str = ""
    tool_calls: Sequence[ToolCallPiece] = ()

    @property
    def is_empty(self) -> bool:
        """True if it adds nothing."""
        return not (self.text or self.logprobs or self.reasoning or self.tool_calls)


def sent(logprobs: Sequence[TokenLogprob], fragments: Fragments) -> Any:
    """Log probabilities for an event; stored ones as a mark in `fragments`."""
    return fragments.mark(logprobs.json) if isinstance(logprobs, StoredLogprobs) else logprobs


class Transcript:
    """A model's output, as far as its reader has received it; of several answers, one."""

    def __init__(self) -> None:
        self.text = self.reasoning = ""
        self.logprobs: list[TokenLogprob] = []
        self._coming: list[TokenLogprob] = []
        self._calls: list[ToolCallPiece] = []

    @property
    def is_empty(self) -> bool:
        """True while a restart would make nothing void."""
        return not (self.text or self.reasoning or self._calls)

    @property
    def answer(self) -> str:
        """The text, by its name in a job."""
        return self.text

    @property
    def tool_calls(self) -> Sequence[ToolCall]:
        """The calls of tools, as far as they have come."""
        return joined(self._calls)

    def take(self, entry: StreamEvent) -> Piece | None:
        """Add an entry of the stream; returns the piece that it completes, if any."""
        match entry.kind:
            case "restart":
                self.text = self.reasoning = ""
                self.logprobs, self._coming, self._calls = [], [], []
            case "tool_call":
                call = ToolCallPiece.of(json.loads(entry.text))
                self._calls.append(call)
                return Piece(tool_calls=[call])
            case "reasoning":
                self.reasoning += entry.text
                return Piece(reasoning=entry.text)
            case "logprobs":
                self._coming += map(json.loads, entry.text.splitlines())
            case "delta":
                piece, self._coming = Piece(entry.text, self._coming), []
                self.text += piece.text
                self.logprobs += piece.logprobs
                return piece
        return None

    def lacks(self, answer: Choice) -> Piece | None:
        """The rest of the final output; None when the transcript is not the beginning of it."""
        text, reasoning = answer.text, answer.reasoning
        is_thought_out = not self.text or self.reasoning == reasoning
        if not (text.startswith(self.text) and reasoning.startswith(self.reasoning) and is_thought_out):
            return None
        if (calls := rest_of(answer.tool_calls, self.tool_calls)) is None:
            return None
        logprobs = (answer.logprobs or ())[len(self.logprobs) :]
        return Piece(text.removeprefix(self.text), logprobs, reasoning.removeprefix(self.reasoning), calls)


def as_it_began(job: Job) -> Job:
    """The job as it was accepted, whatever its state now: an early event must not contain later facts."""
    unbilled = replace(job, usd=Decimal(0), price_version=None)
    uncounted = replace(unbilled, output_tokens=None, cached_tokens=None, reasoning_tokens=None)
    unanswered = replace(uncounted, answer=None, logprobs=None, reasoning=None, finish_reason=None, tool_calls=())
    unfailed = replace(unanswered, error_code=None, error_message=None)
    unserved = replace(unfailed, model_served=None, engine=None, attempt=0)
    return replace(unserved, state=JobState.QUEUED, started_at=None, ended_at=None)


Event = dict[str, Any]

#: The number of the last event before those of the stream's entries. Events 0 to 4 open a response and its first item.
BEFORE_ENTRIES = 4

#: What the stream lacks in the end is numbered from here, or from the next multiple that its reader has not seen.
FROM_ANSWER = 10**12
#: Numbers before that of an entry, which its claim leaves to events that open or close items (`publish_stream.lua`).
BESIDES = 5
#: Events that open a response and its items. The first item's come before any text.
OPENING = frozenset(
    {
        *("response.created", "response.queued", "response.in_progress"),
        *("response.output_item.added", "response.content_part.added"),
    }
)

#: The items of an answer: the prefix of its id, or the place of a call.
Item = Literal["rs_", "msg_"] | int
REASONING: Item = "rs_"
MESSAGE: Item = "msg_"

RESTARTED = "The answer began again: what came before is void."
INTERRUPTED = "This server is stopping; the job goes on."
GONE = "The job no longer exists: it was deleted, or lost with its server. What was sent is not its whole answer."


def is_whole(entries: Sequence[StreamEvent]) -> bool:
    """True when the entries begin where their stream began; False when there are none, or Redis has lost the first."""
    # If Redis lost the stream, a later claim starts at a number that no older claim can have reached.
    return bool(entries) and entries[0].number <= NUMBERS_PER_CLAIM


def can_resume(entries: Sequence[StreamEvent], after: int) -> bool:
    """True when the stream still has everything after this number."""
    is_heard = bool(entries) and BEFORE_ENTRIES + entries[0].number <= after
    return after <= BEFORE_ENTRIES or is_whole(entries) or is_heard


class ResponseEvents:
    """Events of the Responses API. Those up to `after` are not sent again."""

    is_over = False

    def __init__(self, job: Job, *, after: int = -1, accepted: Accepted | None = None) -> None:
        self._job, self._after, self._accepted = job, after, accepted
        self._last = -1
        #: Numbers go on above this after the first item's opening.
        self._floor = -1
        #: False until the event `after` is sent or skipped: what its reader has is unknown until then.
        self._is_found = after < 0
        self._transcript = Transcript()
        self.fragments = Fragments()
        #: The items opened so far, in order; new pieces belong to `_item`. An item is opened only once, even after a
        #: restart: the SDK raises when an index of the output is opened again.
        self._items: list[Item | None] = []
        self._item: Item = MESSAGE
        #: The text of each item that is closed, or a call's arguments.
        self._closed: dict[Item, str] = {}
        #: The call that was begun last.
        self._begun: Event = {}
        #: The job once it has ended: it has what the stream lacks.
        self._ended: Job | None = None

    def opening(self) -> Iterator[Event]:
        """Created and queued; also in progress if the job has started."""
        body = ResponseBody.of(as_it_began(self._job), self._accepted).model_dump(mode="json")
        yield from self._tell("response.created", response=body)
        yield from self._tell("response.queued", response=body)
        if self._job.started_at is not None:
            yield from self._in_progress()

    def more(self, entries: Iterable[StreamEvent]) -> Iterator[Event]:
        """A delta for each piece, and an error for each restart that makes earlier pieces void."""
        for entry in entries:
            # A response has one answer. The job may come from another API, and have several.
            if entry.choice:
                continue
            is_rest = not is_whole([entry])
            if is_rest:
                self._floor = BEFORE_ENTRIES + entry.number - (0 if entry.kind == "begin" else 1 + BESIDES)
            is_void = not self._transcript.is_empty or (is_rest and self._after > BEFORE_ENTRIES)
            thought = self._transcript.reasoning
            piece = self._transcript.take(entry)
            if piece is not None:
                yield from self._open_for(piece, thought)
            elif entry.kind == "restart" and is_void:
                # A reader that got an earlier piece, now or before it resumed, got an item's opening before that.
                yield from [] if self._items else self._open_message("")
            else:
                continue
            if is_rest:
                self._floor = BEFORE_ENTRIES + entry.number - 1
            yield from self._restart() if piece is None else self._delta(piece)

    def ending(self, job: Job) -> Iterator[Event]:
        """The rest of the stored answer, its closing events, and the response as it ended."""
        if job.started_at is not None:
            yield from self._in_progress()
        if job.answer is not None:
            yield from self._rest(job)
        elif not self._is_found:
            self._leave_stream()
        body = ResponseBody.of(job).model_dump(mode="json", context=self.fragments)
        yield from self._closing(body)
        self._count()
        if job.answer is not None and not self._is_found:
            # The stream has all of the answer, but not the event `after`: its reader heard another claim's.
            yield from self._anew(job)
            yield from self._closing(body)
            self._count()
        # OpenAI has no event for a cancelled response.
        outcome = body["status"] if body["status"] in ("completed", "failed") else "incomplete"
        if self._last != self._after:
            yield {"type": f"response.{outcome}", "sequence_number": self._last, "response": body}

    def interrupted(self) -> Iterator[Event]:
        """An error without a number of its own: the reader resumes after the last number it saw."""
        message = f"{INTERRUPTED} Resume with starting_after={self._told}."
        yield _error("stream_interrupted", message, self._told)

    def gone(self) -> Iterator[Event]:
        """An error without a number of its own: what was sent is not the whole answer."""
        yield _error("not_found", GONE, self._told)

    @property
    def _told(self) -> int:
        """The number of the last event that the reader has."""
        return max(self._last if self._is_found else 0, self._after, 0)

    def _tell(self, kind: str, **fields: Any) -> Iterator[Event]:
        if self._count(is_opening=kind in OPENING):
            yield {"type": kind, "sequence_number": self._last, **fields}

    def _count(self, *, is_opening: bool = False) -> bool:
        """Give the next event its number. Returns: True if the reader lacks it, and has all before it."""
        if not (is_opening and self._last < BEFORE_ENTRIES):
            self._last = max(self._last, self._floor)
        self._last += 1
        self._is_found |= self._last == self._after
        return self._is_found and self._last > self._after

    def _leave_stream(self) -> None:
        """Number what follows as no entry of the stream is, and above what the reader has seen."""
        self._floor = (max(0, self._after) // FROM_ANSWER + 1) * FROM_ANSWER

    def _in_progress(self) -> Iterator[Event]:
        if self._last < 2:
            began = as_it_began(self._job)
            running = replace(began, state=JobState.RUNNING, attempt=1)
            yield from self._tell("response.in_progress", response=ResponseBody.of(running).model_dump(mode="json"))

    def _closing(self, body: Event) -> Iterator[Event]:
        calls = count()
        for item in body["output"]:
            if item["type"] == "message":
                yield from self._close_message(item)
            elif item["type"] == "function_call":
                yield from self._close_call(next(calls), item)

    def _open_for(self, piece: Piece, thought: str) -> Iterator[Event]:
        """Open the item of a piece, unless it is open. Args: thought: the reasoning before the piece."""
        if piece.reasoning:
            yield from self._open_reasoning()
        elif piece.tool_calls:
            yield from self._open_call(piece.tool_calls[0], thought)
        else:
            yield from self._open_message(thought)

    def _open_reasoning(self) -> Iterator[Event]:
        yield from self._leave(REASONING)
        if REASONING not in self._items:
            item = ReasoningItem(id=self._item_id, status="in_progress", content=[]).model_dump(
                mode="json", context=self.fragments
            )
            yield from self._open(item, ReasoningText(text=""))

    def _open_message(self, thought: str, *, is_thought_out: bool = True) -> Iterator[Event]:
        """Args: thought: the reasoning so far, which ends here."""
        yield from self._leave(MESSAGE, thought, is_thought_out)
        if MESSAGE not in self._items:
            item = {"id": self._item_id, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
            yield from self._open(item, OutputText(text=""))

    def _open_call(self, call: ToolCallPiece, thought: str) -> Iterator[Event]:
        yield from self._leave(call.index, thought)
        if call.index not in self._items:
            self._items.append(call.index)
            item = FunctionCallItem(
                id=self._item_id, status="in_progress", call_id=call.id or "", name=call.name or "", arguments=""
            ).model_dump(mode="json")
            self._begun = item
            yield from self._in_progress()
            yield from self._tell("response.output_item.added", output_index=self._at["output_index"], item=item)

    def _leave(self, to: Item, thought: str = "", is_thought_out: bool = True) -> Iterator[Event]:
        """Close the item that ends here. If a message goes on after a call, it is closed again in the end."""
        known = self._ended or self._transcript
        if self._item == REASONING != to:
            yield from self._close_reasoning(thought, is_thought_out)
        elif self._item == MESSAGE and isinstance(to, int) and MESSAGE in self._items:
            message = OutputMessage.of(self._job.id, known.answer or "", known.logprobs, "completed")
            yield from self._close_message(message.model_dump(mode="json", context=self.fragments))
        elif isinstance(self._item, int) and self._item != to:
            calls = FunctionCallItem.each_of(self._job.id, known.tool_calls)
            yield from self._close_call(self._item, calls[self._item].model_dump(mode="json"))
        self._item = to

    def _open(self, item: Event, part: OutputText | ReasoningText) -> Iterator[Event]:
        self._items.append(self._item)
        yield from self._in_progress()
        yield from self._tell("response.output_item.added", output_index=self._at["output_index"], item=item)
        yield from self._tell("response.content_part.added", **self._place, part=part.model_dump(mode="json"))

    def _close_reasoning(self, thought: str, is_thought_out: bool) -> Iterator[Event]:
        item = ReasoningItem.of(self._job.id, thought, is_whole=is_thought_out).model_dump(
            mode="json", context=self.fragments
        )
        yield from self._tell("response.reasoning_text.done", **self._place, text=thought)
        yield from self._close(item)

    def _close_message(self, item: Event) -> Iterator[Event]:
        self._item = MESSAGE
        text, logprobs = item["content"][0]["text"], item["content"][0]["logprobs"]
        if self._closed.get(MESSAGE) == text:
            return
        self._closed[MESSAGE] = text
        yield from self._tell("response.output_text.done", **self._place, text=text, logprobs=logprobs)
        yield from self._close(item)

    def _close(self, item: Event) -> Iterator[Event]:
        yield from self._tell("response.content_part.done", **self._place, part=item["content"][0])
        yield from self._tell("response.output_item.done", output_index=self._at["output_index"], item=item)

    def _close_call(self, number: int, item: Event) -> Iterator[Event]:
        self._item = number
        if self._closed.get(number) != item["arguments"]:
            self._closed[number] = item["arguments"]
            fields = {"name": item["name"], "arguments": item["arguments"]}
            yield from self._tell("response.function_call_arguments.done", **self._at, **fields)
            yield from self._tell("response.output_item.done", output_index=self._at["output_index"], item=item)

    @property
    def _item_id(self) -> str:
        number = self._item
        return call_item_id(self._job.id, number) if isinstance(number, int) else show_id(self._job.id, number)

    @property
    def _at(self) -> Event:
        return {"item_id": self._item_id, "output_index": self._items.index(self._item)}

    @property
    def _place(self) -> Event:
        return {**self._at, "content_index": 0}

    def _delta(self, piece: Piece) -> Iterator[Event]:
        if piece.reasoning:
            yield from self._tell("response.reasoning_text.delta", **self._place, delta=piece.reasoning)
        elif piece.tool_calls:
            for call in piece.tool_calls:
                if call.arguments:
                    yield from self._tell("response.function_call_arguments.delta", **self._at, delta=call.arguments)
        else:
            fields = {"delta": piece.text, "logprobs": sent(piece.logprobs, self.fragments)}
            yield from self._tell("response.output_text.delta", **self._place, **fields)

    def _restart(self) -> Iterator[Event]:
        self._count()
        # Whatever the reader had before is void now, also where that is unknown here.
        self._is_found |= self._last > self._after
        if self._last > self._after:
            yield _error("stream_restarted", RESTARTED, self._last)
        # Calls to come are items at other places: the SDK raises when a call's id changes, or one is not ended.
        if isinstance(self._item, int):
            void = {**self._begun, "status": "incomplete"}
            yield from self._tell("response.output_item.done", output_index=self._at["output_index"], item=void)
            self._item = MESSAGE
        self._closed.clear()
        self._items = [None if isinstance(item, int) else item for item in self._items]

    def _rest(self, job: Job) -> Iterator[Event]:
        rest = self._transcript.lacks(job.choices[0])
        # A first item that is a call opens with one event less.
        is_unknown = not self._is_found and self._after > BEFORE_ENTRIES - bool(job.tool_calls)
        # Otherwise the stream may have lost all of the claim that made the answer, and has the text by chance.
        is_of_claim = job.enqueue_no == 1 or self._floor >= (job.enqueue_no - 1) * NUMBERS_PER_CLAIM
        is_whole_answer = rest is not None and rest.is_empty and is_of_claim
        if rest is None or (is_unknown and not is_whole_answer):
            yield from self._anew(job)
            return
        if not is_whole_answer:
            self._leave_stream()
        yield from self._tell_rest(job, rest)

    def _anew(self, job: Job) -> Iterator[Event]:
        """A restart, and the whole answer."""
        self._leave_stream()
        yield from [] if self._items else self._open_message("")
        yield from self._restart()
        yield from self._tell_rest(job, Transcript().lacks(job.choices[0]) or Piece())

    def _tell_rest(self, job: Job, rest: Piece) -> Iterator[Event]:
        if rest.reasoning:
            yield from self._open_reasoning()
            yield from self._delta(Piece(reasoning=rest.reasoning))
        self._ended, thought, calls = job, job.reasoning or "", list(rest.tool_calls)
        while isinstance(self._item, int) and calls:
            yield from self._tell_call(calls.pop(0), thought)  # A call that has begun goes on before the text does.
        has_rest = bool(rest.text or (rest.logprobs and not job.tool_calls))
        if has_rest or (MESSAGE not in self._items and (job.answer or not job.tool_calls)):
            yield from self._open_message(thought, is_thought_out=bool(job.answer))
            yield from self._delta(Piece(rest.text, rest.logprobs)) if has_rest else ()
        for call in calls:
            yield from self._tell_call(call, thought)

    def _tell_call(self, call: ToolCallPiece, thought: str) -> Iterator[Event]:
        yield from self._open_call(call, thought)
        yield from self._delta(Piece(tool_calls=[call]))


def _error(code: str, message: str, number: int) -> Event:
    """An error event. It must not have a key `error`: the SDK raises on one."""
    return {"type": "error", "code": code, "message": message, "param": None, "sequence_number": number}
