"""A job's stream as the chunks of a chat completion, or of a completion. Pure, like `api.streams.events`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from api.schemas.chat import ChatUsage, UsageIn, finish_reason_of, usage_so_far
from api.schemas.completions import PREFIX, CompletionLogprobs
from api.schemas.logprobs import Fragments
from api.schemas.openai import LANE_TIERS, job_error
from api.streams.events import GONE, INTERRUPTED, RESTARTED, Event, Piece, Transcript, sent
from headrace.domain.answers import TokenLogprob
from headrace.domain.ids import show_id
from headrace.domain.jobs import Job, StreamEvent
from headrace.domain.prompts.tools import ToolCallPiece
from headrace.domain.states import JobState
from headrace.errors import HeadraceError, JobUnserved, Unanswered
from headrace.http import shape_of

#: The error for a job that ended and did not succeed.
ErrorOf = Callable[[Job], HeadraceError]
#: Ends a stream of chat completions.
DONE = "[DONE]"


class ChatChunks:
    """Chunks of a chat completion. They cannot take text back: a restart after some text ends the stream."""

    def __init__(self, job: Job, *, usage_in: UsageIn | None = None, error_of: ErrorOf = job_error) -> None:
        self._job, self._usage_in, self._error_of = job, usage_in, error_of
        self._tokens = [0] * job.n
        self._transcripts = [Transcript() for _ in range(job.n)]
        self._unopened = set(range(job.n))
        self.fragments = Fragments()
        self.is_over = False

    def opening(self) -> Iterator[Event]:
        """Nothing: a first chunk comes with the first text, for tools take its time as that of the first token."""
        return iter(())

    def more(self, entries: Iterable[StreamEvent]) -> Iterator[Event]:
        """A chunk for each piece of the content."""
        for entry in entries:
            if self.is_over:
                return
            self._tokens[entry.choice] = entry.tokens or self._tokens[entry.choice]
            if entry.kind == "restart" and not all(each.is_empty for each in self._transcripts):
                yield self._restarted()
            elif piece := self._transcripts[entry.choice].take(entry):
                yield from self._opened(entry.choice)
                yield self._piece(piece, entry.choice)

    def ending(self, job: Job) -> Iterator[Event | str]:
        """The rest of the content, the finish reason, and the usage if requested; or the error."""
        if job.state is not JobState.SUCCEEDED or job.answer is None:
            yield self._failed(self._error_of(job))
            return
        if job.n == 1 and job.output_tokens:
            self._tokens = [job.output_tokens]
        for number, answer in enumerate(job.choices):
            rest = self._transcripts[number].lacks(answer)
            if rest is None:
                yield self._restarted()
                return
            yield from self._opened(number)
            if rest.reasoning:
                yield self._piece(Piece(reasoning=rest.reasoning), number)
            if rest.text or rest.logprobs:
                yield self._piece(Piece(rest.text, rest.logprobs), number)
            if rest.tool_calls:
                yield self._piece(Piece(tool_calls=rest.tool_calls), number)
            yield self._chunk({}, number, finish_reason_of(answer))
        if self._usage_in:
            yield {**self._chunk({}), "choices": [], "usage": ChatUsage.of(job).model_dump(mode="json")}
        self.is_over = True
        yield DONE

    def interrupted(self) -> Iterator[Event]:
        """An error: chat completions cannot be resumed."""
        message = f"{INTERRUPTED} Its answer will be at GET /v1/jobs/{show_id(self._job.id)}."
        yield self._failed(Unanswered(message, self._job.id, code="stream_interrupted"))

    def gone(self) -> Iterator[Event]:
        """An error: what was sent is not the whole answer."""
        yield self._failed(Unanswered(GONE, self._job.id, code="not_found"))

    def _opened(self, number: int) -> Iterator[Event]:
        """The answer's first chunk, unless it has been sent."""
        if number in self._unopened:
            self._unopened.discard(number)
            yield from self._first(number)

    def _first(self, number: int) -> Iterator[Event]:
        """A chunk with the role."""
        yield self._chunk({"role": "assistant", "content": ""}, number)

    def _piece(self, piece: Piece, number: int) -> Event:
        if piece.reasoning:
            return self._chunk({"reasoning": piece.reasoning}, number)
        if piece.tool_calls:
            return self._chunk({"tool_calls": [_call_delta(call) for call in piece.tool_calls]}, number)
        return self._chunk({"content": piece.text}, number, logprobs=piece.logprobs)

    def _chunk(
        self, delta: Event, number: int = 0, finish_reason: str | None = None, logprobs: Sequence[TokenLogprob] = ()
    ) -> Event:
        shown = {"content": sent(logprobs, self.fragments), "refusal": None} if logprobs else None
        choice = {"index": number, "delta": delta, "finish_reason": finish_reason, "logprobs": shown}
        chunk = {
            "id": show_id(self._job.id, "chatcmpl-"),
            "object": "chat.completion.chunk",
            "created": int(self._job.created_at.timestamp()),
            "model": self._job.model_requested,
            "service_tier": LANE_TIERS[self._job.lane],
            "choices": [choice],
        }
        return self._with_usage(chunk, number)

    def _with_usage(self, chunk: Event, number: int) -> Event:
        """The chunk with the tokens of its answer so far, if they are asked for and known."""
        if self._usage_in is None:
            return chunk
        tokens = self._tokens[number]
        is_known = self._usage_in == "chunks" and (tokens or self._transcripts[number].is_empty)
        return {**chunk, "usage": usage_so_far(self._job, tokens) if is_known else None}

    def _restarted(self) -> Event:
        message = f"{RESTARTED} The whole answer will be at GET /v1/jobs/{show_id(self._job.id)}."
        return self._failed(Unanswered(message, self._job.id, code="stream_restarted"))

    def _failed(self, error: HeadraceError) -> Event:
        self.is_over = True
        said = {"message": str(error), "type": shape_of(error).type, "param": error.param, "code": error.code}
        more = {"reason": error.reason, "worker_in_s": error.worker_in_s} if isinstance(error, JobUnserved) else {}
        return {"error": {**said, **more}}


def _call_delta(call: ToolCallPiece) -> Event:
    """A piece of a call. Its id, type and name come once, as SDKs add up what comes."""
    if call.id is None and call.name is None:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": call.index, "id": call.id, "type": "function", "function": function}


class CompletionChunks(ChatChunks):
    """Chunks of a completion, which has no roles."""

    def __init__(self, job: Job, *, echoed: str = "", **more: Any) -> None:
        """Args: echoed: comes before the answer. more: as of ChatChunks."""
        super().__init__(job, **more)
        self._echoed, self._sent_chars = echoed, [0] * job.n

    def _first(self, number: int) -> Iterator[Event]:
        """A chunk with the echo, if there is one."""
        if self._echoed:
            yield self._text_chunk(self._echoed, number)

    def _piece(self, piece: Piece, number: int) -> Event:
        chunk = self._text_chunk(piece.text, number, logprobs=piece.logprobs)
        self._sent_chars[number] += len(piece.text)
        return chunk

    def _chunk(
        self, delta: Event, number: int = 0, finish_reason: str | None = None, logprobs: Sequence[TokenLogprob] = ()
    ) -> Event:
        return self._text_chunk("", number, finish_reason)

    def _text_chunk(
        self, text: str, number: int, finish_reason: str | None = None, logprobs: Sequence[TokenLogprob] = ()
    ) -> Event:
        shown = CompletionLogprobs.of(logprobs, self._sent_chars[number]).model_dump() if logprobs else None
        chunk = {
            "id": show_id(self._job.id, PREFIX),
            "object": "text_completion",
            "created": int(self._job.created_at.timestamp()),
            "model": self._job.model_requested,
            "choices": [{"index": number, "text": text, "finish_reason": finish_reason, "logprobs": shown}],
        }
        return self._with_usage(chunk, number)
