"""Collects a request's answer, output by output. Does not import vllm."""

from typing import Any

from headrace.domain.logprobs import TokenLogprob
from headrace.domain.prompts import storable
from workers.engines.base import Delta, GenerationRequest, OnDelta
from workers.engines.vllm.reasoning import Reading
from workers.engines.vllm.sampling import token_logprobs


class GrowingAnswer:
    """An answer as it grows.

    Attributes:
        tokens: made by now, without the request's prefix.
        reasoning_tokens: tokens before the first one of the text; 0 without reasoning.
    """

    def __init__(self, request: GenerationRequest, on_delta: OnDelta | None, reading: Reading | None) -> None:
        """Args: reading: separates the reasoning from the text; None for a model that does not reason."""
        self._wanted, self._on_delta, self._reading = request.sampling.top_logprobs, on_delta, reading
        self._pieces, self._thoughts = [request.prefix], list[str]()
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
    def reasoning_tokens(self) -> int:
        return self._tokens_before if self._thoughts else 0

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...] | None:
        """Log probabilities of the text's tokens; None if the request did not ask for them."""
        if self._wanted is None:
            return None
        return tuple(self._logprobs)

    def add(self, output: Any) -> None:
        """Add vLLM's next output, and pass the new piece to the listener."""
        thought, piece = map(storable, self._reading.read(output) if self._reading else ("", output.text))
        self.tokens += len(output.token_ids)
        self._thoughts += [thought] if thought else []
        if self._wanted is not None:
            self._logprobs += token_logprobs(output.token_ids, output.logprobs, self._wanted)
        if self._reading and not self._has_begun:
            self._has_begun = bool(piece)
            # Several tokens come at once when they are not fetched in time. The last of them are the text's.
            of_text = self._reading.tokens_of(piece, output.token_ids)
            self._tokens_before += len(output.token_ids) - of_text
            if self._thoughts:
                del self._logprobs[: max(0, len(self._logprobs) - of_text)]
        # The token that ends the answer has no text. It may come by itself, or with the last ones that have.
        has_end = output.finish_reason == "stop" and not isinstance(output.stop_reason, str)
        self._tell(thought, piece, len(self._logprobs) - has_end)

    def _tell(self, thought: str, piece: str, until: int) -> None:
        """Pass on a piece, with the log probabilities up to this one."""
        self._pieces += [piece] if piece else []
        if self._on_delta and (thought or piece):
            logprobs = tuple(self._logprobs[self._told : until]) if piece else ()
            self._on_delta(Delta(piece, logprobs, thought))
            self._told += len(logprobs)
