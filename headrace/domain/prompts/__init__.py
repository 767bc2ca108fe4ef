"""Prompts: the messages of a conversation, a plain text, or the inputs of an embedding; how the model answers. Pure."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

from headrace.domain.prompts.compression import Compression
from headrace.domain.prompts.tools import ToolCall, Tools

Role = Literal["system", "developer", "user", "assistant", "tool"]
#: What an embedding job embeds: a text, or token ids in decimal; see `headrace.domain.prompts.embeddings`.
InputKind = Literal["input", "tokens"]
#: What a completion continues: a text, or token ids in decimal. `plain_text` and `plain_tokens` make both.
PlainKind = Literal["text", "text_tokens"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, one input of an embedding job, or a plain prompt.

    Attributes:
        name: who speaks, where several share a role; chat templates and the paid API may use it.
        tool_calls: the calls that an earlier answer made; it may have no text then.
        tool_call_id: the call whose output this is; with the role `tool` alone.
    """

    role: Role | InputKind | PlainKind
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    @property
    def has_content(self) -> bool:
        """True if it says something: text, or a call."""
        return bool(self.content.strip() or self.tool_calls)

    def to_fields(self) -> dict[str, Any]:
        """The message as JSON, in the format of chat completions, without what it does not have."""
        fields: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.name is not None:
            fields["name"] = self.name
        if self.tool_calls:
            fields["tool_calls"] = [call.to_fields() for call in self.tool_calls]
        if self.tool_call_id is not None:
            fields["tool_call_id"] = self.tool_call_id
        return fields

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `to_fields` wrote, of this release or of another. Raises: KeyError, TypeError: it is malformed."""
        content = fields["content"]
        if not isinstance(content, str):
            raise TypeError
        calls = tuple(map(ToolCall.of, fields.get("tool_calls", ())))
        return cls(fields["role"], content, fields.get("name"), calls, fields.get("tool_call_id"))


#: vLLM's extra sampling parameters, which OpenAI's API lacks or which depend on a model's own tokens: by name, the
#: values that change nothing. Own engines honour all of them; the paid API honours three.
NEUTRAL_EXTRA: Mapping[str, tuple[Any, ...]] = {
    "top_k": (0, -1),
    "min_p": (0,),
    "repetition_penalty": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "min_tokens": (0,),
    "stop_token_ids": ([],),
    "ignore_eos": (False,),
    "skip_special_tokens": (True,),
    "chat_template_kwargs": ({},),
}
#: The extra parameters that OpenAI's API has, too.
PAID_EXTRA = ("presence_penalty", "frequency_penalty", "logit_bias")
#: The extra parameters that an engine cannot apply to an answer whose beginning it is given: it would count the tokens
#: of the rest alone, or read special tokens of the beginning as text.
EXTRA_OF_WHOLE_ANSWERS = ("presence_penalty", "frequency_penalty", "skip_special_tokens")

#: The given parameters, by name; None where a request gives none of them.
ExtraSampling = Mapping[str, Any]


def extra_in_use(extra: ExtraSampling | None) -> dict[str, Any]:
    """The parameters whose values change something."""
    return {name: value for name, value in extra.items() if value not in NEUTRAL_EXTRA.get(name, ())} if extra else {}


def extra_of_own_engines(extra: ExtraSampling | None, *, names_paid_tokens: bool) -> tuple[str, ...]:
    """The names of the parameters that keep a job from the paid API.

    Args: names_paid_tokens: token ids are the paid model's own. Another model's would mean other tokens there.
    """
    shared = PAID_EXTRA if names_paid_tokens else [name for name in PAID_EXTRA if name != "logit_bias"]
    return tuple(name for name in extra_in_use(extra) if name not in shared)


def extra_for_paid(extra: ExtraSampling | None) -> dict[str, Any]:
    """The parameters that the paid API gets."""
    return {name: value for name, value in extra_in_use(extra).items() if name in PAID_EXTRA}


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
        n: how many answers to make, its choices. `max_tokens` bounds each of them.
        compression: how the messages are shortened before an engine gets them; None: not at all.
        tools: the functions that the model may call; None without any.
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
    tools: Tools | None = None
    n: int = 1

    @property
    def most_tokens(self) -> int:
        """The most tokens that all answers together may have."""
        return self.n * self.max_tokens

    @property
    def template_kwargs(self) -> Mapping[str, Any]:
        """The variables of the chat template that the request sets."""
        return self.extra.get("chat_template_kwargs", {}) if self.extra else {}

    @property
    def template_variables(self) -> Mapping[str, Any]:
        """The same, with the tools, which are part of the prompt."""
        return template_variables(self.extra, self.tools)


def template_variables(extra: ExtraSampling | None, tools: Tools | None) -> Mapping[str, Any]:
    """The variables of the chat template that a request sets, with its tools."""
    given = extra.get("chat_template_kwargs", {}) if extra else {}
    return given if tools is None else {**given, "tools": tools.specs}


def has_calls(messages: Sequence[Message]) -> bool:
    """True if a conversation has calls of tools, or their outputs."""
    return any(message.tool_calls or message.role == "tool" for message in messages)


def prompt_digest(model: str, messages: Sequence[Message], sampling: Sampling) -> bytes:
    """A digest that identifies a prompt: model, messages and sampling, whichever app sends it."""
    # Newer fields that change nothing are left out, so that digests stored before them still hold.
    neutral = {"extra": None, "compression": None, "tools": None, "n": 1}
    how = {name: each for name, each in asdict(sampling).items() if name not in neutral or each != neutral[name]}
    asked = {"model": model, "messages": [each.to_fields() for each in messages], "sampling": how}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()


_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def storable(text: str) -> str:
    """Replace the characters that Postgres cannot store (NUL, lone surrogates) by U+FFFD.

    A model may emit either. An answer that cannot be committed would make its job run again and again.
    """
    return _UNSTORABLE.sub("\ufffd", text)


def stored_calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]] | None:
    """The calls of an answer as Postgres stores them; None without any."""
    return [call.to_fields() for call in storable_calls(calls)] or None


def storable_calls(calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
    """As `storable`, for each text of these calls."""
    return tuple(ToolCall(storable(call.id), storable(call.name), storable(call.arguments)) for call in calls)


_PLAIN_KINDS = frozenset(get_args(PlainKind))


def plain_text(text: str) -> Message:
    return Message("text", text)


def plain_tokens(ids: Sequence[int]) -> Message:
    """Token ids to be continued as they are."""
    return Message("text_tokens", " ".join(map(str, ids)))


def is_plain(messages: Sequence[Message]) -> bool:
    """True for a plain prompt, False for a conversation and for inputs."""
    return len(messages) == 1 and messages[0].role in _PLAIN_KINDS


def plain_ids(message: Message) -> list[int] | None:
    """The ids that `plain_tokens` wrote; None for a text."""
    return [int(number) for number in message.content.split()] if message.role == "text_tokens" else None
