"""A job's stream as numbered events of the Responses API.

Pure: the caller brings the job and the entries of its stream. This module knows neither bytes nor waiting.

Events are numbered one by one. Every reader gets the same events, made from the entries of the whole stream. So a
reader that resumes after the last number it saw gets every later event once. Where Redis lost the beginning of a
stream, the number of its events is unknown. Then the numbers follow from those of the entries, which grow with gaps.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Literal, Protocol

from api.door.accepted import Accepted
from api.schemas.logprobs import Fragments
from api.schemas.response_body import OutputText, ReasoningItem, ReasoningText, ResponseBody
from api.streams.transcript import Piece, Transcript, sent
from headrace.domain.ids import show_id
from headrace.domain.jobs import NUMBERS_PER_CLAIM, Job, StreamEvent
from headrace.domain.states import JobState

Event = dict[str, Any]

#: The number of the last event before those of the stream's entries. Events 0 to 4 open a response and its first item.
BEFORE_ENTRIES = 4

#: The items of an answer, by the prefixes of their ids.
Item = Literal["rs_", "msg_"]
REASONING: Item = "rs_"
MESSAGE: Item = "msg_"

RESTARTED = "The answer began again: what came before is void."
INTERRUPTED = "This server is stopping; the job goes on."


class Teller(Protocol):
    """Turns a job's progress into events: `opening`, then `more` any number of times, then one of the other two."""

    @property
    def is_over(self) -> bool:
        """True when no more events follow, whatever happens to the job."""

    @property
    def fragments(self) -> Fragments:
        """The stored JSON for which its events have marks."""

    def opening(self) -> Iterable[Any]:
        """The events before any entry."""

    def more(self, entries: Iterable[StreamEvent]) -> Iterable[Any]:
        """The events of new entries of the job's stream."""

    def ending(self, job: Job) -> Iterable[Any]:
        """The events of the job's end, with the part of its answer that the stream did not have."""

    def interrupted(self) -> Iterable[Any]:
        """The events that end the stream while its job goes on."""


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
        self._transcript = Transcript()
        self.fragments = Fragments()
        #: The items opened so far, in order; new pieces belong to `_item`. An item is opened only once, even after a
        #: restart: the SDK raises when an index of the output is opened again.
        self._items: list[Item] = []
        self._item: Item = MESSAGE

    def opening(self) -> Iterator[Event]:
        """Created and queued; also in progress if the job has started."""
        body = ResponseBody.of(_as_it_began(self._job), self._accepted).model_dump(mode="json")
        yield from self._tell("response.created", response=body)
        yield from self._tell("response.queued", response=body)
        if self._job.started_at is not None:
            yield from self._in_progress()

    def more(self, entries: Iterable[StreamEvent]) -> Iterator[Event]:
        """A delta for each piece, and an error for each restart that makes earlier pieces void."""
        for entry in entries:
            is_rest = not is_whole([entry])
            is_void = not self._transcript.is_empty or (is_rest and self._after > BEFORE_ENTRIES)
            thought = self._transcript.reasoning
            piece = self._transcript.take(entry)
            if piece is not None:
                yield from self._open_reasoning() if piece.reasoning else self._open_message(thought)
            elif entry.kind == "restart" and is_void:
                # A reader that got an earlier piece, now or before it resumed, got an item's opening before that.
                yield from [] if self._items else self._open_message("")
            else:
                continue
            if is_rest:
                self._last = BEFORE_ENTRIES + entry.number - 1
            yield from self._restart() if piece is None else self._delta(piece)

    def ending(self, job: Job) -> Iterator[Event]:
        """The rest of the stored answer, its closing events, and the response as it ended."""
        if job.started_at is not None:
            yield from self._in_progress()
        if job.answer is not None:
            yield from self._rest(job)
        body = ResponseBody.of(job).model_dump(mode="json", context=self.fragments)
        for item in body["output"][-1:]:
            yield from self._close_message(item)
        # OpenAI has no event for a cancelled response.
        outcome = body["status"] if body["status"] in ("completed", "failed") else "incomplete"
        self._last += 1
        # Also sent if `after` is beyond the last number: that reader would otherwise never see an end.
        if self._last != self._after:
            yield {"type": f"response.{outcome}", "sequence_number": self._last, "response": body}

    def interrupted(self) -> Iterator[Event]:
        """An error without a number of its own: the reader resumes after the last number it saw."""
        last = max(self._last, self._after, 0)
        message = f"{INTERRUPTED} Resume with starting_after={last}."
        yield _error("stream_interrupted", message, last)

    def _tell(self, kind: str, **fields: Any) -> Iterator[Event]:
        self._last += 1
        if self._last > self._after:
            yield {"type": kind, "sequence_number": self._last, **fields}

    def _in_progress(self) -> Iterator[Event]:
        if self._last < 2:
            began = _as_it_began(self._job)
            running = replace(began, state=JobState.RUNNING, attempt=1)
            yield from self._tell(
                "response.in_progress",
                response=ResponseBody.of(running).model_dump(mode="json"),
            )

    def _open_reasoning(self) -> Iterator[Event]:
        self._item = REASONING
        if REASONING not in self._items:
            item = ReasoningItem(id=self._item_id, status="in_progress", content=[]).model_dump(
                mode="json", context=self.fragments
            )
            yield from self._open(item, ReasoningText(text=""))

    def _open_message(self, thought: str, *, is_thought_out: bool = True) -> Iterator[Event]:
        """Args: thought: the reasoning so far, which ends here."""
        if self._item == REASONING:
            yield from self._close_reasoning(thought, is_thought_out)
        self._item = MESSAGE
        if MESSAGE not in self._items:
            item = {"id": self._item_id, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
            yield from self._open(item, OutputText(text=""))

    def _open(self, item: Event, part: OutputText | ReasoningText) -> Iterator[Event]:
        self._items.append(self._item)
        yield from self._in_progress()
        yield from self._tell("response.output_item.added", output_index=self._place["output_index"], item=item)
        yield from self._tell("response.content_part.added", **self._place, part=part.model_dump(mode="json"))

    def _close_reasoning(self, thought: str, is_thought_out: bool) -> Iterator[Event]:
        item = ReasoningItem.of(self._job.id, thought, is_whole=is_thought_out).model_dump(
            mode="json", context=self.fragments
        )
        yield from self._tell("response.reasoning_text.done", **self._place, text=thought)
        yield from self._close(item)

    def _close_message(self, item: Event) -> Iterator[Event]:
        text, logprobs = item["content"][0]["text"], item["content"][0]["logprobs"]
        yield from self._tell("response.output_text.done", **self._place, text=text, logprobs=logprobs)
        yield from self._close(item)

    def _close(self, item: Event) -> Iterator[Event]:
        yield from self._tell("response.content_part.done", **self._place, part=item["content"][0])
        yield from self._tell("response.output_item.done", output_index=self._place["output_index"], item=item)

    @property
    def _item_id(self) -> str:
        return show_id(self._job.id, self._item)

    @property
    def _place(self) -> Event:
        return {"item_id": self._item_id, "output_index": self._items.index(self._item), "content_index": 0}

    def _delta(self, piece: Piece) -> Iterator[Event]:
        if piece.reasoning:
            yield from self._tell("response.reasoning_text.delta", **self._place, delta=piece.reasoning)
        else:
            told = {"delta": piece.text, "logprobs": sent(piece.logprobs, self.fragments)}
            yield from self._tell("response.output_text.delta", **self._place, **told)

    def _restart(self) -> Iterator[Event]:
        self._last += 1
        if self._last > self._after:
            yield _error("stream_restarted", RESTARTED, self._last)

    def _rest(self, job: Job) -> Iterator[Event]:
        rest = self._transcript.lacks(job)
        if rest is None:
            yield from self._restart()
            rest = Transcript().lacks(job) or Piece()
        if rest.reasoning:
            yield from self._open_reasoning()
            yield from self._delta(Piece(reasoning=rest.reasoning))
        yield from self._open_message(job.reasoning or "", is_thought_out=bool(job.answer))
        if rest.text or rest.logprobs:
            yield from self._delta(Piece(rest.text, rest.logprobs))


def _as_it_began(job: Job) -> Job:
    """The job as it was accepted, whatever its state now: an early event must not contain later facts."""
    unbilled = replace(job, usd=Decimal(0), price_version=None)
    uncounted = replace(unbilled, output_tokens=None, cached_tokens=None, reasoning_tokens=None)
    unanswered = replace(uncounted, answer=None, logprobs=None, reasoning=None, finish_reason=None)
    unfailed = replace(unanswered, error_code=None, error_message=None)
    unserved = replace(unfailed, model_served=None, engine=None, attempt=0)
    return replace(unserved, state=JobState.QUEUED, started_at=None, ended_at=None)


def _error(code: str, message: str, number: int) -> Event:
    """An error event. It must not have a key `error`: the SDK raises on one."""
    return {"type": "error", "code": code, "message": message, "param": None, "sequence_number": number}
