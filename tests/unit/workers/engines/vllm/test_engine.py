"""What the engine does before vLLM is asked: no core is needed for a job that has all its tokens."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from headrace.config import PoolSettings
from headrace.domain.prompts import Message, ReasoningEffort, Sampling
from headrace.policies.tokens import EstimatingTokenizer
from headrace.policies.tokens.chat_template import Kwargs
from workers.engines.base import GenerationRequest
from workers.engines.vllm.engine import _ENCODINGS_AT_ONCE, VllmEngine


class CountingTokenizer(EstimatingTokenizer):
    """Notes in which threads it encodes, and how many it ever encoded in at once."""

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.now = self.most = 0
        self._lock = threading.Lock()
        self._together = threading.Barrier(_ENCODINGS_AT_ONCE)

    def encode(
        self, messages: Sequence[Message], effort: ReasoningEffort | None = None, kwargs: Kwargs | None = None
    ) -> list[int]:
        with self._lock:
            self.threads.add(threading.get_ident())
            self.now += 1
            self.most = max(self.most, self.now)
        self._together.wait(20)
        with self._lock:
            self.now -= 1
        return super().encode(messages)


def test_prompts_are_encoded_a_few_at_once_in_the_threads_of_their_tasks() -> None:
    tokenizer, caller = CountingTokenizer(), threading.get_ident()
    engine = VllmEngine(PoolSettings(), tokenizer)
    core: Any = object()
    engine._core = core

    def generate(number: int) -> int:
        request = GenerationRequest(str(number), (Message("user", "x" * 100),), Sampling(max_tokens=0))
        engine.generate(request)
        return threading.get_ident()

    with ThreadPoolExecutor(8) as threads:
        tasks = set(threads.map(generate, range(8 * _ENCODINGS_AT_ONCE)))
    assert tokenizer.most == _ENCODINGS_AT_ONCE
    assert tokenizer.threads <= tasks
    assert caller not in tokenizer.threads
