"""What a stream's reader is told, in the words of Responses or of chat completions, each event with its number.

Pure: the job and the entries of its stream come from outside, bytes and waiting are not known here. The numbers follow
from the entries alone, so that a reader who comes back with the last one he saw misses nothing and hears nothing twice.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Protocol

from api.problems import shape_of
from api.schemas.chat_body import ChatUsage, finish_reason_of
from api.schemas.openai_request import LANE_TIERS
from api.schemas.response_body import OutputText, ResponseBody
from api.submit import Accepted
from api.unanswered import unanswered
from headrace.errors import HeadraceError, Unanswered
from headrace.jobs import JobState, TokenLogprob, show_id
from headrace.store.jobs import Job
from headrace.streams import StreamEvent

Event = dict[str, Any]

#: The number of a Responses event that tells of the stream's entry 0, if there were one: entries count from 1.
BEFORE_ENTRIES = 4
#: Ends a stream of chat completions.
DONE = "[DONE]"

RESTARTED = "The answer began again: what came before is void."
INTERRUPTED = "This server is stopping; the job goes on."


class Teller(Protocol):
    """Turns what happens to a job into events, in order: `opening`, `more` any number of times, one of the others."""

    @property
    def is_over(self) -> bool:
        """True when there is nothing more to tell, whatever happens to the job."""

    def opening(self) -> Iterable[Any]:
        """What is told before anything has happened."""

    def more(self, entries: Iterable[StreamEvent]) -> Iterable[Any]:
        """New entries of the job's stream."""

    def ending(self, job: Job) -> Iterable[Any]:
        """The job as it ended, with whatever of its answer the stream did not have."""

    def interrupted(self) -> Iterable[Any]:
        """The end of a telling whose job goes on."""


@dataclass(frozen=True, slots=True)
class Told:
    """A piece of the answer, with the log probabilities of its tokens where there are any."""

    text: str
    logprobs: Sequence[TokenLogprob] = ()


class Heard:
    """The answer as its reader knows it."""

    def __init__(self) -> None:
        self.text = ""
        self._logprobs = 0
        self._coming: list[TokenLogprob] = []

    def take(self, entry: StreamEvent) -> Told | None:
        """Take an entry of the stream in; returns the piece that it completes, if it does."""
        match entry.kind:
            case "restart":
                self.forget()
            case "logprobs":
                self._coming += map(json.loads, entry.text.splitlines())
            case "delta":
                piece, self._coming = Told(entry.text, self._coming), []
                self.text += piece.text
                self._logprobs += len(piece.logprobs)
                return piece
        return None

    def forget(self) -> None:
        """What was heard is void."""
        self.text, self._logprobs, self._coming = "", 0, []

    def lacks(self, job: Job) -> Told | None:
        """What is missing to make it the job's answer; None when it is another."""
        stored = job.answer or ""
        if not stored.startswith(self.text):
            return None
        return Told(stored.removeprefix(self.text), (job.logprobs or [])[self._logprobs :])


class ResponseEvents:
    """Events of the Responses API. Those up to `after` are not told again."""

    is_over = False

    def __init__(self, job: Job, *, after: int = -1, accepted: Accepted | None = None) -> None:
        self._job, self._after, self._accepted = job, after, accepted
        self._last = -1
        self._heard = Heard()
        self._has_item = False
        self._item_id = show_id(job.id, "msg_")
        self._place = {"item_id": self._item_id, "output_index": 0, "content_index": 0}

    def opening(self) -> Iterator[Event]:
        """Created and queued; also in progress when that is known."""
        body = ResponseBody.of(_as_it_began(self._job), self._accepted).model_dump(mode="json")
        yield from self._tell("response.created", response=body)
        yield from self._tell("response.queued", response=body)
        if self._job.started_at is not None:
            yield from self._in_progress()

    def more(self, entries: Iterable[StreamEvent]) -> Iterator[Event]:
        """A delta for each entry, and an error for each that makes void what came before it."""
        for entry in entries:
            is_news = bool(self._heard.text) or self._after > BEFORE_ENTRIES
            piece = self._heard.take(entry)
            if piece is None and (entry.kind != "restart" or not is_news):
                continue
            yield from self._open_item()
            self._last = BEFORE_ENTRIES + entry.number - 1
            yield from self._restart() if piece is None else self._delta(piece)

    def ending(self, job: Job) -> Iterator[Event]:
        """The rest of the stored answer, its closing events, and the response as it ended."""
        if job.started_at is not None:
            yield from self._in_progress()
        if job.answer is not None:
            yield from self._rest(job)
        body = ResponseBody.of(job).model_dump(mode="json")
        for item in body["output"]:
            yield from self._close_item(item)
        # OpenAI has no event for a cancelled response.
        outcome = body["status"] if body["status"] in ("completed", "failed") else "incomplete"
        self._last += 1
        # Also to who asks for what comes after a number that never was: he would wait for an end that is not told.
        if self._last != self._after:
            yield {"type": f"response.{outcome}", "sequence_number": self._last, "response": body}

    def interrupted(self) -> Iterator[Event]:
        """An error that takes no number of its own: its reader comes back with the last he saw."""
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
            yield from self._tell("response.in_progress", response=ResponseBody.of(running).model_dump(mode="json"))

    def _open_item(self) -> Iterator[Event]:
        if self._has_item:
            return
        self._has_item = True
        yield from self._in_progress()
        item = {"id": self._item_id, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        yield from self._tell("response.output_item.added", output_index=0, item=item)
        part = OutputText(text="").model_dump(mode="json")
        yield from self._tell("response.content_part.added", **self._place, part=part)

    def _delta(self, piece: Told) -> Iterator[Event]:
        yield from self._tell("response.output_text.delta", **self._place, delta=piece.text, logprobs=piece.logprobs)

    def _restart(self) -> Iterator[Event]:
        self._last += 1
        if self._last > self._after:
            yield _error("stream_restarted", RESTARTED, self._last)

    def _rest(self, job: Job) -> Iterator[Event]:
        yield from self._open_item()
        rest = self._heard.lacks(job)
        if rest is None:
            yield from self._restart()
            rest = Heard().lacks(job)
        if rest and (rest.text or rest.logprobs):
            yield from self._delta(rest)

    def _close_item(self, item: Event) -> Iterator[Event]:
        part = item["content"][0]
        yield from self._tell("response.output_text.done", **self._place, text=part["text"], logprobs=part["logprobs"])
        yield from self._tell("response.content_part.done", **self._place, part=part)
        yield from self._tell("response.output_item.done", output_index=0, item=item)


class ChatChunks:
    """Chunks of a chat completion. Text that was told cannot be taken back here: a restart ends the telling."""

    def __init__(self, job: Job, *, include_usage: bool = False) -> None:
        self._job, self._include_usage = job, include_usage
        self._heard = Heard()
        self.is_over = False

    def opening(self) -> Iterator[Event]:
        """Whose turn it is."""
        yield self._chunk({"role": "assistant", "content": ""})

    def more(self, entries: Iterable[StreamEvent]) -> Iterator[Event]:
        """The content, piece by piece."""
        for entry in entries:
            if self.is_over:
                return
            if entry.kind == "restart" and self._heard.text:
                yield self._restarted()
            elif piece := self._heard.take(entry):
                yield self._piece(piece)

    def ending(self, job: Job) -> Iterator[Event | str]:
        """The rest, why it ended, the usage where it was asked for; or the error."""
        if job.state is not JobState.SUCCEEDED or job.answer is None:
            yield self._failed(unanswered(job))
            return
        rest = self._heard.lacks(job)
        if rest is None:
            yield self._restarted()
            return
        if rest.text or rest.logprobs:
            yield self._piece(rest)
        yield self._chunk({}, finish_reason_of(job))
        if self._include_usage:
            yield {**self._chunk({}), "choices": [], "usage": ChatUsage.of(job).model_dump(mode="json")}
        self.is_over = True
        yield DONE

    def interrupted(self) -> Iterator[Event]:
        """An error: chat completions cannot be resumed."""
        message = f"{INTERRUPTED} Its answer will be at GET /v1/jobs/{show_id(self._job.id)}."
        yield self._failed(Unanswered(message, self._job.id, code="stream_interrupted"))

    def _piece(self, piece: Told) -> Event:
        return self._chunk({"content": piece.text}, logprobs=piece.logprobs)

    def _chunk(self, delta: Event, finish_reason: str | None = None, logprobs: Sequence[TokenLogprob] = ()) -> Event:
        told = {"content": logprobs, "refusal": None} if logprobs else None
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": told}
        chunk = {
            "id": show_id(self._job.id, "chatcmpl-"),
            "object": "chat.completion.chunk",
            "created": int(self._job.created_at.timestamp()),
            "model": self._job.model_requested,
            "service_tier": LANE_TIERS[self._job.lane],
            "choices": [choice],
        }
        return {**chunk, "usage": None} if self._include_usage else chunk

    def _restarted(self) -> Event:
        message = f"{RESTARTED} The whole answer will be at GET /v1/jobs/{show_id(self._job.id)}."
        return self._failed(Unanswered(message, self._job.id, code="stream_restarted"))

    def _failed(self, error: HeadraceError) -> Event:
        self.is_over = True
        kind = shape_of(error).type
        return {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}


def _as_it_began(job: Job) -> Job:
    """The job as it was accepted, whatever has become of it: an event of the past must not tell the future."""
    unbilled = replace(job, usd=Decimal(0), price_version=None, output_tokens=None, cached_tokens=None)
    unanswered = replace(unbilled, answer=None, logprobs=None, finish_reason=None, error_code=None, error_message=None)
    unserved = replace(unanswered, model_served=None, engine=None, attempt=0)
    return replace(unserved, state=JobState.QUEUED, started_at=None, ended_at=None)


def _error(code: str, message: str, number: int) -> Event:
    """The SDK raises on a key `error`, so that there must be none."""
    return {"type": "error", "code": code, "message": message, "param": None, "sequence_number": number}
