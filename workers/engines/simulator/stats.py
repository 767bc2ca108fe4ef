"""What the simulator has done: tokens, and the steps that a real engine would have taken. Knows no request."""

import time
from collections.abc import Callable

from workers.engines.base import EngineStats


class Totals:
    """Added up for `EngineStats`. Not safe for many threads.

    A step is the time that a token of an answer takes. Steps pass while anything runs, and only whole ones count.
    """

    def __init__(self, step_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing yet. Args: step_s: how long a step takes."""
        self._step_s, self._clock = step_s, clock
        self._step_ended = clock()
        self._steps = self._running_sum = 0
        self._kv_use_sum = 0.0
        self._prompt_tokens = self._output_tokens = self._first_tokens = 0
        self._first_token_s = 0.0

    def pass_time(self, running: int, kv_use: float) -> None:
        """Until now so many ran, and held this share of the blocks. Call it before either changes."""
        if running:
            steps = int((self._clock() - self._step_ended) / self._step_s)
            self._step_ended += steps * self._step_s
            self._steps += steps
            self._running_sum += steps * running
            self._kv_use_sum += steps * kv_use
        else:
            self._step_ended = self._clock()

    def read(self, tokens: int) -> None:
        """A prompt, or the beginning of an answer, was read."""
        self._prompt_tokens += tokens

    def made(self, tokens: int, first_token_s: float | None) -> None:
        """Tokens were made. Args: first_token_s: how long the first of them was waited for, if it is an answer's."""
        self._output_tokens += tokens
        if first_token_s is not None:
            self._first_tokens += 1
            self._first_token_s += first_token_s

    def stats(self, running: int, waiting: int, kv_use: float) -> EngineStats:
        """All of it, and what holds now."""
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
