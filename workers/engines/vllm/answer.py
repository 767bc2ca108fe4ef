"""Collects a request's answer, output by output. Does not import vllm."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from headrace.domain.attempts import Usage
from headrace.domain.choices import Choice
from headrace.domain.logprobs import TokenLogprob
from headrace.domain.prompts import storable
from headrace.domain.prompts.tools import ToolCall, ToolCallPiece, joined
from workers.engines.base import Delta, FinishReason, Generation, GenerationRequest, OnDelta
from workers.engines.vllm.reading import Reading
from workers.engines.vllm.sampling import token_logprobs


class GrowingAnswer:
    """An answer as it grows.

    Attributes:
        tokens: made by now, without the request's prefix.
        reasoning_tokens: tokens before the first one of the text; 0 without reasoning.
    """

    def __init__(
        self,
        request: GenerationRequest,
        on_delta: OnDelta | None,
        reading: Reading | None,
        choice: int = 0,
        prefix_tokens: int = 0,
    ) -> None:
        """Begin an answer.

        Args:
            reading: separates the reasoning and the calls from the text; None if all of it is text.
            choice: the answer's number, where the request asks for several.
            prefix_tokens: those of the request's prefix.
        """
        self._choice, self._prefix_tokens = choice, prefix_tokens
        self._ended_by: FinishReason = "abort"
        self._wanted, self._on_delta, self._reading = request.sampling.top_logprobs, on_delta, reading
        self._pieces, self._thoughts = [request.prefix], list[str]()
        self._tools = request.sampling.tools
        self._calls: list[ToolCallPiece] = []
        self._logprobs: list[TokenLogprob] = []
        self._told = self.tokens = self._tokens_before = 0
        self._has_begun = False

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def reasoning(self) -> str:
        return "".join(self._thoughts)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return joined(self._calls)

    @property
    def reasoning_tokens(self) -> int:
        return self._tokens_before if self._thoughts else 0

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...] | None:
        """Log probabilities of the text's tokens; None if the request did not ask for them."""
        if self._wanted is None:
            return None
        return tuple(self._logprobs)

    @property
    def finish_reason(self) -> FinishReason:
        """vLLM's own reason, unless the model chose to call tools; `abort` until it has ended."""
        chose = self._tools is not None and self._tools.choice != "function" and bool(self._calls)
        return "tool_calls" if chose and self._ended_by == "stop" else self._ended_by

    def add(self, output: Any) -> None:
        """Add vLLM's next output, and pass the new piece to the listener."""
        read = self._reading.read(output) if self._reading else Delta(storable(output.text))
        self.tokens += len(output.token_ids)
        self._thoughts += [read.reasoning] if read.reasoning else []
        self._calls += read.tool_calls
        self._ended_by = output.finish_reason or self._ended_by
        if self._wanted is not None:
            self._logprobs += token_logprobs(output.token_ids, output.logprobs, self._wanted)
        if self._reading and not self._has_begun:
            self._has_begun = bool(read.text or read.tool_calls)
            # Several tokens come at once when they are not fetched in time. The last of them are the text's.
            of_text = self._reading.tokens_of(read.text, output.token_ids)
            self._tokens_before += len(output.token_ids) - of_text
            if self._thoughts:
                del self._logprobs[: max(0, len(self._logprobs) - of_text)]
        # The token that ends the answer has no text. It may come by itself, or with the last ones that have.
        has_end = output.finish_reason == "stop" and not isinstance(output.stop_reason, str)
        self._tell(read, len(self._logprobs) - has_end)

    def _tell(self, read: Delta, until: int) -> None:
        """Pass on a piece, with the log probabilities up to this one."""
        self._pieces += [read.text] if read.text else []
        if self._on_delta and (read.reasoning or read.text or read.tool_calls):
            logprobs = tuple(self._logprobs[self._told : until]) if read.text else ()
            tokens = self._prefix_tokens + self.tokens
            self._on_delta(replace(read, logprobs=logprobs, choice=self._choice, tokens=tokens))
            self._told += len(logprobs)

    def as_choice(self) -> Choice:
        """The answer as one after the first."""
        return Choice(self.text, self.finish_reason, self.logprobs, self.reasoning, self.tool_calls)


class GrowingAnswers:
    """All answers to one request."""

    def __init__(
        self,
        request: GenerationRequest,
        on_delta: OnDelta | None,
        readings: Sequence[Reading | None],
        prompt_tokens: int,
        prefix_tokens: int,
    ) -> None:
        """Args: readings: one for each answer; see `GrowingAnswer`."""
        self._each = [
            GrowingAnswer(request, on_delta, reading, number, prefix_tokens) for number, reading in enumerate(readings)
        ]
        self._prompt_tokens, self._cached_tokens = prompt_tokens, prompt_tokens
        self._prefix_tokens = prefix_tokens

    def __len__(self) -> int:
        return len(self._each)

    @property
    def tokens(self) -> int:
        """Those that all of them have by now, without the request's prefix."""
        return sum(each.tokens for each in self._each)

    def add(self, output: Any) -> None:
        """Add vLLM's next output, with news of one answer or more."""
        for completion in output.outputs:
            self._each[completion.index].add(completion)
        cached_tokens = min(output.num_cached_tokens or 0, self._prompt_tokens)  # The prefix counts as output.
        # The first of several answers reads the prompt for the others.
        self._cached_tokens = min(cached_tokens, self._cached_tokens) if len(self) > 1 else cached_tokens

    def generation(self, model: str) -> Generation:
        """The answers as they stand. They are aborted if one of them did not end."""
        first, *others = self._each
        reasons = [each.finish_reason for each in self._each]
        made, thought = self._prefix_tokens + self.tokens, sum(each.reasoning_tokens for each in self._each)
        return Generation(
            text=first.text,
            logprobs=first.logprobs,
            reasoning=first.reasoning,
            tool_calls=first.tool_calls,
            usage=Usage(self._prompt_tokens, made, self._cached_tokens, thought),
            finish_reason="abort" if "abort" in reasons else reasons[0],
            model_served=model,
            others=tuple(each.as_choice() for each in others),
        )
