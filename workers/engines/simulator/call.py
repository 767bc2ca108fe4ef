"""One request in the simulator, its planned answer and its progress; and the totals of all requests. Pure."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from headrace.domain.answers import Choice, TokenLogprob
from headrace.domain.prompts.tools import ToolCall, ToolCallPiece, joined
from headrace.errors import EngineError
from workers.engines.base import Delta, EngineStats, GenerationRequest
from workers.engines.simulator.answer import SURE, logprob


@dataclass(eq=False, slots=True)
class Call:
    """One request: its planned answer, and its progress.

    Attributes:
        pieces: the reasoning, then the answer, one piece of text per token; last the arguments of its calls.
        others: the answers after the first, each as a call of its own that only says what it would answer.
        thoughts: the number of pieces that are reasoning.
        given: the number of pieces that the request's prefix holds whole.
        counted: the number of pieces that the totals count already, or that the prefix holds.
        woken: set on each change that its thread must see.
        admitted_at: when it got its blocks (monotonic seconds); None while it waits for them.
        delivered: tokens of its answer that its listener has got; None without a listener.
        vectors: the answer of an embedding, which has no pieces; None for a prompt.
        calls_at: the number of pieces before the calls.
        best_logprob: the log probability of each token.
    """

    request: GenerationRequest
    prompt_tokens: int
    pieces: list[str]
    thoughts: int
    given: int
    finish_reason: Literal["stop", "length", "tool_calls"]
    blocks: int
    counted: int
    began: float = field(default_factory=time.monotonic)
    woken: threading.Event = field(default_factory=threading.Event)
    admitted_at: float | None = None
    delivered: int | None = None
    aborted: bool = False
    error: EngineError | None = None
    vectors: str | None = None
    calls: Sequence[ToolCallPiece] = ()
    calls_at: int = 0
    best_logprob: float = SURE
    others: "list[Call]" = field(default_factory=list)

    @property
    def longest(self) -> int:
        return max(len(each.pieces) for each in (self, *self.others))

    def tokens(self, upto: int) -> int:
        """Tokens of all answers, once each has `upto` or is whole."""
        return sum(min(upto, len(each.pieces)) for each in (self, *self.others))

    @property
    def over(self) -> bool:
        return self.aborted or self.error is not None

    def text(self, tokens: int) -> str:
        """The answer's text within the first `tokens`, or the prefix if that is longer. Vectors only whole."""
        if self.vectors is not None:
            return "" if self.over else self.vectors
        return self.request.prefix + "".join(self.pieces[max(self.given, self.thoughts) : min(tokens, self.calls_at)])

    def choices(self, tokens: int) -> tuple[Choice, ...]:
        """The answers after the first, within the first `tokens` of each."""
        return tuple(
            Choice(
                each.text(tokens),
                "abort" if self.aborted and tokens < len(each.pieces) else each.finish_reason,
                each.logprobs(0, tokens),
                each.reasoning(tokens),
                each.tool_calls(tokens),
            )
            for each in self.others
        )

    def deltas(self, token: int) -> Iterator[Delta]:
        """The piece that this token adds to each answer that is long enough. Counts tokens from 1."""
        for choice, each in enumerate((self, *self.others)):
            if token <= len(each.pieces):
                yield replace(each.delta(token), choice=choice, tokens=token)

    def reasoning(self, tokens: int) -> str:
        """The reasoning within the first `tokens`."""
        return "".join(self.pieces[: min(self.thoughts, tokens)])

    def delta(self, token: int) -> Delta:
        """The piece that this token adds. Counts tokens from 1."""
        if token > self.calls_at:
            return Delta("", tool_calls=(self.calls[token - 1 - self.calls_at],))
        piece = self.pieces[token - 1]
        if token <= self.thoughts:
            return Delta("", reasoning=piece)
        return Delta(piece, self.logprobs(token - 1, token) or ())

    def tool_calls(self, tokens: int) -> tuple[ToolCall, ...]:
        """The calls within the first `tokens`."""
        return joined(self.calls[: max(0, tokens - self.calls_at)])

    def logprobs(self, after: int, upto: int) -> tuple[TokenLogprob, ...] | None:
        """Invented log probabilities of these tokens; None if the request did not ask for them."""
        if (wanted := self.request.sampling.top_logprobs) is None:
            return None
        made = self.pieces[max(after, self.thoughts) : min(upto, self.calls_at)]
        return tuple(logprob(piece, wanted, self.best_logprob) for piece in made)


class Totals:
    """Adds up `EngineStats`. Not safe for many threads.

    A step is the time that a token of an answer takes. Steps pass while a request runs. Only whole steps count.
    """

    def __init__(self, step_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start at zero. Args: step_s: how long a step takes."""
        self._step_s, self._clock = step_s, clock
        self._step_ended = clock()
        self._steps = self._running_sum = 0
        self._kv_use_sum = 0.0
        self._prompt_tokens = self._output_tokens = self._first_tokens = 0
        self._first_token_s = 0.0

    def pass_time(self, running: int, kv_use: float) -> None:
        """Count the steps since the last call, with this load. Call it before the load changes."""
        if running:
            steps = int((self._clock() - self._step_ended) / self._step_s)
            self._step_ended += steps * self._step_s
            self._steps += steps
            self._running_sum += steps * running
            self._kv_use_sum += steps * kv_use
        else:
            self._step_ended = self._clock()

    def read(self, tokens: int) -> None:
        """Count the tokens of a prompt, or of an answer's prefix, that were read."""
        self._prompt_tokens += tokens

    def made(self, tokens: int, first_token_s: float | None) -> None:
        """Count tokens that were made. Args: first_token_s: the wait for an answer's first token, if among them."""
        self._output_tokens += tokens
        if first_token_s is not None:
            self._first_tokens += 1
            self._first_token_s += first_token_s

    def stats(self, running: int, waiting: int, kv_use: float) -> EngineStats:
        """The totals, together with the present load."""
        return EngineStats(
            running,
            waiting,
            kv_use,
            self._steps,
            self._kv_use_sum,
            self._running_sum,
            self._prompt_tokens,
            self._output_tokens,
            first_tokens=self._first_tokens,
            first_token_s=self._first_token_s,
        )
