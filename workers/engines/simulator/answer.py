"""The simulator's output. Reasoning is words; an answer is a label, the prompt's fingerprint, and words. Pure.

An answer with a `response_format` is JSON of that format. With tools it may be calls instead.
"""

import bisect
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from headrace.domain.logprobs import TokenLogprob, alternative
from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.tools import ToolCallPiece
from headrace.policies.tokens import PromptTokenizer
from workers.engines.base import GenerationRequest
from workers.engines.simulator.calls import calls, functions_to_call
from workers.engines.simulator.constrained import BYTES_A_TOKEN, WORDS, in_tokens, write

LABEL = "[simulated] "
#: What a simulated model says that declines.
REFUSAL = "I'm sorry, but I can't help with that."
#: The log probability of each token, and of those of an answer of which the model is unsure.
SURE, UNSURE = -1.0, -4.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered. Attributes: pieces: its text, a piece for each token; calls: after it, likewise."""

    pieces: list[str]
    finish_reason: Literal["stop", "length", "tool_calls"]
    calls: list[ToolCallPiece] = field(default_factory=list)


def fingerprint(messages: tuple[Message, ...]) -> str:
    """The SHA-256 that the answer to these messages carries, in hex."""
    return hashlib.sha256("\n".join(f"{message.role}: {message.content}" for message in messages).encode()).hexdigest()


def answer(
    request: GenerationRequest,
    output_tokens: int,
    tokenizer: PromptTokenizer,
    *,
    declines: bool = False,
    choice: int = 0,
) -> Answer:
    """The answer, piece by piece: label and fingerprint, then words, up to a stop string or the last token.

    With a `response_format` it is JSON in the model's own tokens, of any length up to `max_tokens`. With tools it may
    be calls of them, likewise.

    Args:
        declines: the answer is the label and a refusal, whatever the request asks for.
        choice: the answer's number: each begins with another word, or is another JSON of its schema.

    Raises: PromptRejected for a schema that cannot guide the answer.
    """
    functions = functions_to_call(request.sampling.tools, request.messages)
    if functions and not declines:
        return _calls(request, functions, tokenizer, choice)
    if not declines and (request.sampling.response_format or {}).get("type", "text") != "text":
        return _json(request, tokenizer, choice)
    words: Iterable[str] = itertools.islice(itertools.cycle(WORDS), choice, None)
    first = fingerprint(request.messages)
    output_tokens = _length(request.sampling, output_tokens)
    if declines:
        first, *words = REFUSAL.split()
        output_tokens = 1 + len(words)
    tokens = min(output_tokens, request.sampling.max_tokens)
    body = [first, *(f" {word}" for word in itertools.islice(words, tokens - 1))]
    pieces, is_stopped = _up_to_stop(body, request.sampling.stop)
    # The label is part of the first token, so that every answer has it.
    pieces = ["".join((LABEL, *pieces[:1])), *pieces[1:]]
    return Answer(pieces, "stop" if is_stopped or output_tokens <= request.sampling.max_tokens else "length")


def _calls(
    request: GenerationRequest, functions: Sequence[Mapping[str, Any]], tokenizer: PromptTokenizer, choice: int
) -> Answer:
    made, is_whole = calls(request, functions, _seed(request, choice), tokenizer)
    if not is_whole or len(made) > request.sampling.max_tokens:
        return Answer([], "length", made[: request.sampling.max_tokens])
    is_named = request.sampling.tools is not None and request.sampling.tools.choice == "function"
    return Answer([], "stop" if is_named else "tool_calls", made)


def _seed(request: GenerationRequest, choice: int) -> str:
    return f"{fingerprint(request.messages)} {request.sampling.seed}{f' {choice}' if choice else ''}"


def _json(request: GenerationRequest, tokenizer: PromptTokenizer, choice: int) -> Answer:
    how, is_whole = request.sampling, True
    if schema := (how.response_format or {}).get("json_schema"):
        text, is_whole = write(schema["schema"], _seed(request, choice), BYTES_A_TOKEN * how.max_tokens)
    else:
        made = {"simulated": True, "fingerprint": fingerprint(request.messages), "text": " ".join(WORDS)}
        text = json.dumps(made)
    body = in_tokens(text, tokenizer)
    pieces, is_stopped = _up_to_stop(body[: how.max_tokens], how.stop)
    return Answer(pieces, "stop" if is_stopped or (is_whole and len(body) <= how.max_tokens) else "length")


def _up_to_stop(body: Sequence[str], stops: Sequence[str]) -> tuple[list[str], bool]:
    """The pieces before the first stop string, and whether there is one."""
    whole = "".join(body)
    ends = [at for stop in stops if (at := whole.find(stop)) >= 0]
    end = min(ends, default=len(whole))
    starts = itertools.accumulate(map(len, body), initial=0)
    return [piece[: end - start] for start, piece in zip(starts, body, strict=False) if start < end], bool(ends)


def _length(sampling: Sampling, output_tokens: int) -> int:
    """How long the answer would be without `max_tokens`."""
    extra = sampling.extra or {}
    if extra.get("ignore_eos"):
        return sampling.max_tokens + 1
    return int(max(output_tokens, extra.get("min_tokens", 0)))


def thoughts(tokens: int) -> list[str]:
    """The reasoning before an answer, piece by piece."""
    return [f"{word} " for word in itertools.islice(itertools.cycle(reversed(WORDS)), tokens)]


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
    others = [f" {word}" for word in WORDS if f" {word}" != piece]
    likeliest = [alternative(token, best * rank) for rank, token in enumerate((piece, *others), start=1)]
    return {**likeliest[0], "top_logprobs": likeliest[:top_logprobs]}
