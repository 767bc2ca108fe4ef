"""What tests of the semantic cache share: an embedding model that counts words, and settings with a cache."""

import math
from typing import Any, cast
from zlib import crc32

from headrace.config import PoolSettings, Settings
from headrace.config.pools import SemanticCacheSettings
from headrace.domain.attempts import Usage
from headrace.domain.prompts.embeddings import pack_floats, to_answer
from headrace.errors import PromptRejected
from workers.engines.base import Engine, Generation, GenerationRequest

DIMENSIONS = 64
#: Questions: one, the same in other words, and its opposite; and the answer.
ASKED = "How do I turn on dark mode?"
SAME = "How can I turn on dark mode?"
OPPOSITE = "How do I turn off dark mode?"
ANSWER = "In the settings."


class WordEngine:
    """Embeds a text as the bag of its words. Attributes: requests: texts of each request. fails: what it raises."""

    name = "vllm"

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.fails: Exception | None = None

    def generate(self, request: GenerationRequest) -> Generation:
        """Embed; a text of more than a hundred words is refused, as by a small model."""
        texts = [message.content for message in request.messages]
        self.requests.append(texts)
        if self.fails is not None:
            raise self.fails
        if any(len(text.split()) > 100 for text in texts):
            raise PromptRejected("too long")
        answer = to_answer(pack_floats(_vector(text)) for text in texts)
        return Generation(answer, Usage(1), "stop", "words")


def _vector(text: str) -> list[float]:
    numbers = [0.0] * DIMENSIONS
    for word in text.lower().split():
        numbers[crc32(word.strip("?.!,").encode()) % DIMENSIONS] += 1.0
    length = math.hypot(*numbers) or 1.0
    return [number / length for number in numbers]


def with_semantic_cache(
    settings: Settings, *, shadow: bool = False, record: bool = True, hold_s: float = 0.0, **changes: Any
) -> Settings:
    """The settings with a semantic cache of the pool `chat`, looked up by the pool `embed`, which is served here."""
    cache = SemanticCacheSettings(pool="embed", shadow=shadow, record=record, hold_s=hold_s)
    chat = settings.pools["chat"].model_copy(update={"cache_s": 60.0, "semantic_cache": cache, **changes})
    embed = PoolSettings(engine="simulator", serves="embeddings", model="words")
    return settings.model_copy(update={"pools": {**settings.pools, "chat": chat, "embed": embed}})


def engine_of(words: WordEngine) -> Engine:
    """As the type that its user takes; the rest of an engine is not used."""
    return cast(Engine, words)
