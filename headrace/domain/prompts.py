"""Prompts: the messages of a conversation, or the inputs of an embedding, and how the model answers."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


Role = Literal["system", "developer", "user", "assistant"]
#: What an embedding job embeds: a text, or token ids in decimal. `headrace.domain.embeddings.inputs` makes both.
InputKind = Literal["input", "tokens"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, or one input of an embedding job."""

    role: Role | InputKind
    content: str


#: How much a model reasons before it answers, in ascending order. Source: OpenAI's API; vLLM's own server.
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


#: What a request says of stored answers. `exact`: that of an identical job will do, however it was sampled.
CacheChoice = Literal["never", "exact"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to decode. `max_tokens` bounds the output; None elsewhere means the engine's default.

    Attributes:
        max_tokens: 0 for an embedding job, which makes no tokens; at least 1 for every other job.
        top_logprobs: how many of the most likely tokens to return at each position, beside the generated one; None for
            no log probabilities at all.
        reasoning_effort: how much the model reasons before the answer.
        dimensions: the length to which an embedding's vectors are shortened; None for the model's own.
    """

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    response_format: Mapping[str, Any] | None = None
    top_logprobs: int | None = None
    reasoning_effort: ReasoningEffort | None = None
    dimensions: int | None = None


def prompt_digest(model: str, messages: Sequence[Message], sampling: Sampling) -> bytes:
    """A digest that identifies a prompt: model, messages and sampling, whichever app sends it."""
    asked = {"model": model, "messages": [asdict(each) for each in messages], "sampling": asdict(sampling)}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()


def storable(text: str) -> str:
    """Replace the characters that Postgres cannot store (NUL, lone surrogates) by U+FFFD.

    A model may emit either. An answer that cannot be committed would make its job run again and again.
    """
    return _UNSTORABLE.sub("\ufffd", text)
