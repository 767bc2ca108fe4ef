"""Prompts: the messages of a conversation, or the inputs of an embedding, and how the model answers."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from headrace.domain.compression import Compression
from headrace.domain.prompts.extra_sampling import ExtraSampling

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


Role = Literal["system", "developer", "user", "assistant"]
#: What an embedding job embeds: a text, or token ids in decimal. `headrace.domain.embeddings.inputs` makes both.
InputKind = Literal["input", "tokens"]
#: What a completion continues: a text, or token ids in decimal. `headrace.domain.prompts.plain` makes both.
PlainKind = Literal["text", "text_tokens"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, one input of an embedding job, or a plain prompt.

    Attributes:
        name: who speaks, where several share a role; chat templates and the paid API may use it.
    """

    role: Role | InputKind | PlainKind
    content: str
    name: str | None = None

    def to_fields(self) -> dict[str, str]:
        """The message as JSON, without a name where it has none."""
        named = {} if self.name is None else {"name": self.name}
        return {"role": self.role, "content": self.content, **named}


#: How much a model reasons before it answers, in ascending order. Source: OpenAI's API; vLLM's own server.
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


#: What a request says of stored answers. `exact`: that of an identical job will do, however it was sampled. `semantic`:
#: so will that of a job that asks the same in other words.
CacheChoice = Literal["never", "exact", "semantic"]
#: What a request of the model `auto` says of the answer's quality. `high`: only the best pool of its rule will do.
Quality = Literal["high"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to decode. `max_tokens` bounds the output; None elsewhere means the engine's default.

    Attributes:
        max_tokens: 0 for an embedding job, which makes no tokens; at least 1 for every other job.
        top_logprobs: how many of the most likely tokens to return at each position, beside the generated one; None for
            no log probabilities at all.
        reasoning_effort: how much the model reasons before the answer.
        dimensions: the length to which an embedding's vectors are shortened; None for the model's own.
        extra: vLLM's extra sampling parameters; None without any.
        compression: how the messages are shortened before an engine gets them; None: not at all.
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
    compression: Compression | None = None
    extra: ExtraSampling | None = None

    @property
    def template_kwargs(self) -> Mapping[str, Any]:
        """The variables of the chat template that the request sets."""
        return self.extra.get("chat_template_kwargs", {}) if self.extra else {}


def prompt_digest(model: str, messages: Sequence[Message], sampling: Sampling) -> bytes:
    """A digest that identifies a prompt: model, messages and sampling, whichever app sends it."""
    how = asdict(sampling)
    if sampling.extra is None:
        del how["extra"]  # So that digests stored before there were extra parameters still hold.
    if sampling.compression is None:
        del how["compression"]  # Likewise before there was compression.
    asked = {"model": model, "messages": [each.to_fields() for each in messages], "sampling": how}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()


def storable(text: str) -> str:
    """Replace the characters that Postgres cannot store (NUL, lone surrogates) by U+FFFD.

    A model may emit either. An answer that cannot be committed would make its job run again and again.
    """
    return _UNSTORABLE.sub("\ufffd", text)
