"""Prompts: the messages of a conversation, and how the model decodes its answer."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


Role = Literal["system", "developer", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


#: How much a model is to think before it answers, from nothing upwards. Source: OpenAI's API; vLLM's own server.
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to decode. `max_tokens` bounds the output; None elsewhere means the engine's default.

    Attributes:
        top_logprobs: the most likely tokens to tell of at each place of the answer, beside the one that was made; None
            where no log probability is asked for.
        reasoning_effort: how much to think before the answer.
    """

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    response_format: Mapping[str, Any] | None = None
    top_logprobs: int | None = None
    reasoning_effort: ReasoningEffort | None = None


def prompt_digest(model: str, messages: Sequence[Message], sampling: Sampling) -> bytes:
    """By what a prompt is known again: what the model is asked, and how it is to decode, whoever asks."""
    asked = {"model": model, "messages": [asdict(each) for each in messages], "sampling": asdict(sampling)}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()


def storable(text: str) -> str:
    """The text with what Postgres cannot hold (NUL, lone surrogates) replaced by U+FFFD.

    A model may emit either; an answer that can never be committed would be run again and again.
    """
    return _UNSTORABLE.sub("\ufffd", text)
