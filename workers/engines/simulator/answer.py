"""The simulator's output. Reasoning is words; an answer is a label, the prompt's fingerprint, and words. Pure."""

import bisect
import hashlib
import itertools
from typing import Literal

from headrace.domain.logprobs import TokenLogprob, alternative
from headrace.domain.prompts import Message, Sampling
from workers.engines.base import GenerationRequest

LABEL = "[simulated] "
_WORDS = ("water", "falls", "through", "the", "headrace", "and", "turns", "a", "wheel")


def fingerprint(messages: tuple[Message, ...]) -> str:
    """The SHA-256 that the answer to these messages carries, in hex."""
    return hashlib.sha256("\n".join(f"{message.role}: {message.content}" for message in messages).encode()).hexdigest()


def answer(request: GenerationRequest, output_tokens: int) -> tuple[list[str], Literal["stop", "length"]]:
    """The answer, piece by piece: label and fingerprint, then words, up to a stop string or the last token."""
    output_tokens = _length(request.sampling, output_tokens)
    tokens = min(output_tokens, request.sampling.max_tokens)
    words = itertools.islice(itertools.cycle(_WORDS), tokens - 1)
    body = [fingerprint(request.messages), *(f" {word}" for word in words)]
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


def logprob(piece: str, top_logprobs: int) -> TokenLogprob:
    """The token as the likeliest one, and less likely words as alternatives."""
    others = [f" {word}" for word in _WORDS if f" {word}" != piece]
    likeliest = [alternative(token, -float(rank)) for rank, token in enumerate((piece, *others), start=1)]
    return {**likeliest[0], "top_logprobs": likeliest[:top_logprobs]}
