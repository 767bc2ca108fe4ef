"""The simulator's totals: tokens, and the steps that a real engine would have taken. Knows no request."""

import time
from collections.abc import Callable

from workers.engines.base import EngineStats


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
