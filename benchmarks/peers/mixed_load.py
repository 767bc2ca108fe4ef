"""Interactive prompts beside a batch load: what is asked and when, and what was seen of it. One for every side.

Pure, and the same for every server: it crosses to another process as JSON.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Any, Self

#: How many tokens a prompt has for the engine.
CountTokens = Callable[[str], int]

SUBJECTS = ("a river", "the sea", "an old mill", "the first snow", "a lighthouse", "bread", "a long bridge", "the moon")


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt.

    Attributes:
        size: about how many tokens it has for the engine.
        tokens: what the engine sees.
    """

    text: str
    size: int
    tokens: list[int]
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Load:
    """One run.

    Attributes:
        batch: what the batch load asks, from the beginning again when it has come to the end.
        outstanding: batch jobs that are kept there: as one ends, the next is submitted.
        ramp_s: from the first batch job until the clock counts.
        alone_s: from then on until the first interactive prompt.
        interactive: these are asked one after the other, at a steady rate, whether those before have been answered or
            not.
    """

    batch: Sequence[Ask]
    outstanding: int
    ramp_s: float
    alone_s: float
    interactive: Sequence[Ask]
    interval_s: float

    def to_json(self) -> dict[str, Any]:
        """For `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Self:
        """What `to_json` made."""
        asks = {name: [Ask(**each) for each in given[name]] for name in ("batch", "interactive")}
        return cls(**{**given, **asks})


@dataclass(frozen=True, slots=True)
class Span:
    """One batch answer: seconds since 1970 of its first and its last token, and how many there were."""

    begin: float
    end: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What one run came to.

    Attributes:
        first_s: seconds to the first token of each interactive prompt, in their order.
        spans: of every batch answer that was begun.
        alone, beside: from when until when the batch load ran alone, and with interactive prompts beside it.
    """

    first_s: Sequence[float]
    spans: Sequence[Span]
    alone: tuple[float, float]
    beside: tuple[float, float]

    @property
    def share(self) -> float:
        """The batch load's tokens a second with interactive prompts beside it, over those without."""
        return self.tokens_per_s(self.beside) / self.tokens_per_s(self.alone)

    def tokens_per_s(self, window: tuple[float, float]) -> float:
        """Batch tokens a second between two moments; each answer's are taken to come evenly."""
        return sum(_within(span, window) for span in self.spans) / (window[1] - window[0])

    def to_json(self) -> dict[str, Any]:
        """For `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Self:
        """What `to_json` made."""
        spans = [Span(**each) for each in given["spans"]]
        return cls(given["first_s"], spans, tuple(given["alone"]), tuple(given["beside"]))


def _within(span: Span, window: tuple[float, float]) -> float:
    overlap_s = min(span.end, window[1]) - max(span.begin, window[0])
    return span.tokens * max(0.0, overlap_s) / max(span.end - span.begin, 1e-6)


def text_of(name: str, size: int, tokens_of: CountTokens) -> str:
    """A prompt that begins with this name, so that none is asked twice, with at least `size` tokens and few more."""
    text, words = f"{name}: tell me about", cycle(SUBJECTS)
    while tokens_of(text) < size:
        text += f" {next(words)},"
    return text
