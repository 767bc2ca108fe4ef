"""Measures of surprise for benchmarks: an engine's own with the time that they take, and others in their place."""

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from headrace.domain.prompts.compression import TokenSurprise


class Surprising:
    """Compresses by the engine's own measure, and counts the time that this takes."""

    def __init__(self, engine: Any) -> None:
        self._engine, self.measured_s, self.tokens = engine, 0.0, 0
        #: What each request has found.
        self.found: dict[str, list[list[TokenSurprise]]] = {}

    def surprise(self, request_id: str, texts: Sequence[str], priority: int = 0) -> list[list[TokenSurprise]]:
        """As the engine does it."""
        began = time.perf_counter()
        measured: list[list[TokenSurprise]] = self._engine.surprise(request_id, texts, priority)
        self.measured_s += time.perf_counter() - began
        self.tokens += sum(map(len, measured))
        self.found[request_id] = measured
        return measured


class Otherwise:
    """Puts other numbers in the place of the engine's measures: by chance, or the most surprising for the least."""

    def __init__(self, measured: Surprising, seed: int | None = None) -> None:
        """Args: seed: for chance; None to turn the measures round."""
        self._measured, self._chance = measured, None if seed is None else random.Random(seed)

    def surprise(self, request_id: str, texts: Sequence[str], priority: int = 0) -> list[list[TokenSurprise]]:
        """The same tokens with other numbers."""
        return [[self._other(token) for token in text] for text in self._measured.found[request_id]]

    def _other(self, token: TokenSurprise) -> TokenSurprise:
        if self._chance is not None:
            return replace(token, nats=self._chance.random())
        return replace(token, nats=None if token.nats is None else -token.nats)
