"""What a stream's reader knows of the answer, and what it lacks. Pure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api.schemas.logprobs import Fragments
from headrace.domain.jobs import Job, StreamEvent
from headrace.domain.logprobs import StoredLogprobs, TokenLogprob


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of what a model says: of its answer, with the log probabilities of its tokens, or of its reasoning."""

    text: str = ""
    logprobs: Sequence[TokenLogprob] = ()
    reasoning: str = ""


def sent(logprobs: Sequence[TokenLogprob], fragments: Fragments) -> Any:
    """Log probabilities as an event says them: as they are stored, where they are."""
    return fragments.mark(logprobs.json) if isinstance(logprobs, StoredLogprobs) else logprobs


class Transcript:
    """What a model says, as its reader knows it."""

    def __init__(self) -> None:
        self.text = self.reasoning = ""
        self._logprobs = 0
        self._coming: list[TokenLogprob] = []

    @property
    def is_empty(self) -> bool:
        """True while it has nothing that could become void."""
        return not (self.text or self.reasoning)

    def take(self, entry: StreamEvent) -> Piece | None:
        """Take an entry of the stream in; returns the piece that it completes, if it does."""
        match entry.kind:
            case "restart":
                self.text = self.reasoning = ""
                self._logprobs, self._coming = 0, []
            case "reasoning":
                self.reasoning += entry.text
                return Piece(reasoning=entry.text)
            case "logprobs":
                self._coming += map(json.loads, entry.text.splitlines())
            case "delta":
                piece, self._coming = Piece(entry.text, self._coming), []
                self.text += piece.text
                self._logprobs += len(piece.logprobs)
                return piece
        return None

    def lacks(self, job: Job) -> Piece | None:
        """What is missing to make it what the job says in the end; None when it is something else."""
        text, reasoning = job.answer or "", job.reasoning or ""
        is_thought_out = not self.text or self.reasoning == reasoning
        if not (text.startswith(self.text) and reasoning.startswith(self.reasoning) and is_thought_out):
            return None
        logprobs = (job.logprobs or ())[self._logprobs :]
        return Piece(text.removeprefix(self.text), logprobs, reasoning.removeprefix(self.reasoning))
