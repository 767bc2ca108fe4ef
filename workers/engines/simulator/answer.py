"""The simulator's output: answers, calls of tools and vectors. Pure.

An answer is a label, the prompt's fingerprint, and words. With a `response_format` it is JSON of that format, with
tools it may be calls. Reasoning is words.
"""

import bisect
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from headrace.domain.answers import TokenLogprob, alternative
from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.embeddings import pack_floats, to_answer
from headrace.domain.prompts.tools import ToolCallPiece, Tools
from headrace.errors import PromptRejected
from headrace.policies.tokens import PromptTokenizer
from workers.engines.base import GenerationRequest
from workers.engines.simulator.constrained import BYTES_A_TOKEN, WORDS, in_tokens, write


def functions_to_call(tools: Tools | None, messages: Sequence[Message]) -> Sequence[Mapping[str, Any]]:
    """The functions that the answer calls; none if it is a text.

    After a user's turn, those that the turn names, or else the first one. After outputs of tools none, unless the
    choice is `required`: then the first one that was not called since the user's turn, or else the last.
    """
    if tools is None or tools.choice == "none" or not tools.functions:
        return ()
    if tools.choice == "function":
        return [each for each in tools.functions if each["name"] == tools.name][:1]
    turn = max((at for at, message in enumerate(messages) if message.role == "user"), default=-1)
    since = messages[turn + 1 :]
    if not any(message.role == "tool" for message in since):
        asked = messages[turn].content
        named = [each for each in tools.functions if each["name"] in asked] or tools.functions[:1]
        return named if tools.parallel else named[:1]
    if tools.choice == "auto":
        return ()
    called = {call.name for message in since for call in message.tool_calls}
    return [each for each in tools.functions if each["name"] not in called][:1] or tools.functions[-1:]


def calls(
    request: GenerationRequest, functions: Sequence[Mapping[str, Any]], seed: str, tokenizer: PromptTokenizer
) -> tuple[list[ToolCallPiece], bool]:
    """Calls of these functions.

    Returns: one piece that begins each call, one for each token of its arguments, and whether all arguments are whole.

    Raises: PromptRejected for parameters that cannot guide the arguments.
    """
    made, are_whole = list[ToolCallPiece](), True
    for index, function in enumerate(functions):
        digest = hashlib.sha256(f"{seed} {len(request.messages)} {index}".encode()).hexdigest()
        made.append(ToolCallPiece(index, f"call_{digest[:24]}", function["name"]))
        parameters = {"type": "object", "properties": {}, **(function.get("parameters") or {})}
        try:
            text, is_whole = write(parameters, digest, BYTES_A_TOKEN * request.sampling.max_tokens)
        except PromptRejected as error:
            raise PromptRejected(f"The parameters of {function['name']}: {error}", param="tools") from error
        made += (ToolCallPiece(index, arguments=token) for token in in_tokens(text, tokenizer))
        are_whole &= is_whole
    return made, are_whole


LABEL = "[simulated] "
#: What a simulated model says that declines.
REFUSAL = "I'm sorry, but I can't help with that."
#: The log probability of each token, and of those of an answer of which the model is unsure.
SURE, UNSURE = -1.0, -4.0


@dataclass(frozen=True, slots=True)
class SimulatedAnswer:
    """What a request is answered. Attributes: pieces: its text by token; calls: what follows the text, by token."""

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
) -> SimulatedAnswer:
    """The answer, piece by piece: label and fingerprint, then words, up to a stop string or the last token.

    With a `response_format` it is JSON in the model's own tokens, of any length up to `max_tokens`. With tools it may
    be calls of them.

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
    return SimulatedAnswer(pieces, "stop" if is_stopped or output_tokens <= request.sampling.max_tokens else "length")


def _calls(
    request: GenerationRequest, functions: Sequence[Mapping[str, Any]], tokenizer: PromptTokenizer, choice: int
) -> SimulatedAnswer:
    made, is_whole = calls(request, functions, _seed(request, choice), tokenizer)
    if not is_whole or len(made) > request.sampling.max_tokens:
        return SimulatedAnswer([], "length", made[: request.sampling.max_tokens])
    is_named = request.sampling.tools is not None and request.sampling.tools.choice == "function"
    return SimulatedAnswer([], "stop" if is_named else "tool_calls", made)


def _seed(request: GenerationRequest, choice: int) -> str:
    return f"{fingerprint(request.messages)} {request.sampling.seed}{f' {choice}' if choice else ''}"


def _json(request: GenerationRequest, tokenizer: PromptTokenizer, choice: int) -> SimulatedAnswer:
    how, is_whole = request.sampling, True
    if schema := (how.response_format or {}).get("json_schema"):
        text, is_whole = write(schema["schema"], _seed(request, choice), BYTES_A_TOKEN * how.max_tokens)
    else:
        made = {"simulated": True, "fingerprint": fingerprint(request.messages), "text": " ".join(WORDS)}
        text = json.dumps(made)
    body = in_tokens(text, tokenizer)
    pieces, is_stopped = _up_to_stop(body[: how.max_tokens], how.stop)
    return SimulatedAnswer(pieces, "stop" if is_stopped or (is_whole and len(body) <= how.max_tokens) else "length")


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


# Vectors are bags of tokens, of length 1. Texts that share tokens are alike, whatever their order.

#: The numbers of a vector: as many as all-MiniLM-L6-v2 makes.
DIMENSIONS = 384
#: The numbers that one token changes.
_PLACES = 8


def vectors(inputs: Sequence[Sequence[int]], dimensions: int | None) -> str:
    """The answer to these inputs, given as token ids. Raises: PromptRejected for more dimensions than a vector has."""
    if dimensions is not None and dimensions > DIMENSIONS:
        message = f"A vector has {DIMENSIONS} dimensions here: ask for fewer."
        raise PromptRejected(message, param="dimensions")
    return to_answer(pack_floats(_vector(each, dimensions or DIMENSIONS)) for each in inputs)


def _vector(tokens: Sequence[int], dimensions: int) -> list[float]:
    # Tokens may cancel each other out. This little keeps a length.
    numbers = [0.01] * DIMENSIONS
    for token in tokens:
        for place, sign in _places(token):
            numbers[place] += sign
    numbers = numbers[:dimensions]
    length = math.hypot(*numbers)
    return [number / length for number in numbers]


@lru_cache(maxsize=65_536)
def _places(token: int) -> tuple[tuple[int, float], ...]:
    """Where a token adds to the vector, and what: a few places, so that two tokens seldom share one."""
    raw = hashlib.shake_256(str(token).encode()).digest(3 * _PLACES)
    return tuple(
        (int.from_bytes(raw[at : at + 2]) % DIMENSIONS, 1.0 if raw[at + 2] % 2 else -1.0)
        for at in range(0, len(raw), 3)
    )
