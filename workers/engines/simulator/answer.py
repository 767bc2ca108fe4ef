"""The simulator's output. Reasoning is words; an answer is a label, the prompt's fingerprint, and words. Pure."""

import bisect
import hashlib
import itertools
from collections.abc import Iterable
from typing import Literal

from headrace.domain.logprobs import TokenLogprob, alternative
from headrace.domain.prompts import Message, Sampling
from workers.engines.base import GenerationRequest

LABEL = "[simulated] "
#: What a simulated model says that declines.
REFUSAL = "I'm sorry, but I can't help with that."
#: The log probability of each token, and of those of an answer of which the model is unsure.
SURE, UNSURE = -1.0, -4.0
_WORDS = ("water", "falls", "through", "the", "headrace", "and", "turns", "a", "wheel")


def fingerprint(messages: tuple[Message, ...]) -> str:
    """The SHA-256 that the answer to these messages carries, in hex."""
    return hashlib.sha256("\n".join(f"{message.role}: {message.content}" for message in messages).encode()).hexdigest()


def answer(
    request: GenerationRequest, output_tokens: int, *, declines: bool = False
) -> tuple[list[str], Literal["stop", "length"]]:
    """The answer, piece by piece: label and fingerprint, then words, up to a stop string or the last token.

    Args: declines: the answer is the label and a refusal.
    """
    words: Iterable[str] = itertools.cycle(_WORDS)
    first = fingerprint(request.messages)
    output_tokens = _length(request.sampling, output_tokens)
    if declines:
        first, *words = REFUSAL.split()
        output_tokens = 1 + len(words)
    tokens = min(output_tokens, request.sampling.max_tokens)
    body = [first, *(f" {word}" for word in itertools.islice(words, tokens - 1))]
    whole = "".join(body)
    ends = [at for stop in request.sampling.stop if (at := whole.find(stop)) >= 0]
    end, pieces = min(ends, default=len(whole)), [LABEL]
    for start, piece in zip(itertools.accumulate(map(len, body), initial=0), body, strict=False):
        if start == 0 or start < end:
            pieces.append(piece[: end - start])
    # The label is part of the first token, so that every answer has it.
    pieces[:2] = ["".join(pieces[:2])]
    return pieces, "stop" if ends or output_tokens <= request.sampling.max_tokens else "length"


def _length(sampling: Sampling, output_tokens: int) -> int:
    """How long the answer would be without `max_tokens`."""
    extra = sampling.extra or {}
    if extra.get("ignore_eos"):
        return sampling.max_tokens + 1
    return int(max(output_tokens, extra.get("min_tokens", 0)))


def thoughts(tokens: int) -> list[str]:
    """The reasoning before an answer, piece by piece."""
    return [f"{word} " for word in itertools.islice(itertools.cycle(reversed(_WORDS)), tokens)]


def skip(pieces: list[str], characters: int) -> tuple[int, list[str]]:
    """Skip the first `characters`. Returns: the number of whole pieces in them; all pieces, the next one cut."""
    ends = list(itertools.accumulate(map(len, pieces)))
    given = bisect.bisect_right(ends, characters)
    if given == len(pieces):
        return given, pieces
    rest = pieces[given][characters - (ends[given - 1] if given else 0) :]
    return given, [*pieces[:given], rest, *pieces[given + 1 :]]


def logprob(piece: str, top_logprobs: int, best: float = SURE) -> TokenLogprob:
    """The token as the likeliest one, and less likely words as alternatives. Args: best: its log probability."""
    others = [f" {word}" for word in _WORDS if f" {word}" != piece]
    likeliest = [alternative(token, best * rank) for rank, token in enumerate((piece, *others), start=1)]
    return {**likeliest[0], "top_logprobs": likeliest[:top_logprobs]}
