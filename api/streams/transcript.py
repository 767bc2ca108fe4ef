"""The transcript: what a stream's reader has received of the answer, and what it lacks. Pure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api.schemas.logprobs import Fragments
from headrace.domain.choices import Choice
from headrace.domain.jobs import StreamEvent
from headrace.domain.logprobs import StoredLogprobs, TokenLogprob
from headrace.domain.prompts.tools import ToolCall, ToolCallPiece, joined, rest_of


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
