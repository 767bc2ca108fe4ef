"""Tokens: counts and encodes a prompt, or an embedding's inputs, with the model's own tokenizer, without torch.

Knows a model's files; knows nothing about job states, HTTP or engines.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
import tokenizers
from jinja2.sandbox import ImmutableSandboxedEnvironment

from headrace.domain.embeddings.inputs import are_inputs, token_ids
from headrace.domain.prompts import Message, ReasoningEffort
from headrace.errors import ConfigError, InvalidRequest
from headrace.policies.byte_bound import byte_bound

#: A text with more characters is encoded without the GIL, since it would block every other thread. A short text takes
#: less than a millisecond, less than a busy process needs to get the GIL back.
LONG_CHARS = 2_000
#: The files that counting needs: a few MB, while the weights have many GB.
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "config.json")


class PromptTokenizer(Protocol):
    """Counts and encodes the tokens of prompts.

    Attributes:
        reads_effort: False if the reasoning effort does not change the prompt.
    """

    reads_effort: bool

    def encode(self, messages: Sequence[Message], effort: ReasoningEffort | None = None) -> list[int]:
        """The token ids of the whole prompt, generation prompt included. Raises: InvalidRequest."""
        ...

    def count(self, messages: Sequence[Message], effort: ReasoningEffort | None = None) -> int:
        """How many tokens the whole prompt has. Raises: InvalidRequest."""
        ...

    def encode_answer(self, text: str) -> list[int]:
        """The token ids of the beginning of an answer, which follow those of its prompt."""
        ...

    def least(self, messages: Sequence[Message], effort: ReasoningEffort | None = None) -> int:
        """A lower bound of the count, cheap for any length; 0 if none is proven. Raises: InvalidRequest."""
        ...


def template_arguments(effort: ReasoningEffort | None) -> dict[str, Any]:
    """The chat template's arguments for an effort, by the two names that vLLM's own server uses."""
    return {} if effort is None else {"reasoning_effort": effort, "enable_thinking": effort != "none"}


class Tokenizer:
    """A model's own chat template and tokenizer. Safe to use from many threads."""

    def __init__(self, folder: Path) -> None:
        """Read a model's folder. Raises: ConfigError."""
        try:
            spec = (folder / "tokenizer.json").read_text(encoding="utf-8")
            self._tokenizer = tokenizers.Tokenizer.from_str(spec)
            template, environment = _template_text(folder), _environment()
            self._template = environment.from_string(template)
            read = jinja2.meta.find_undeclared_variables(environment.parse(template))
            self._special_tokens = _special_tokens(folder)
        except (OSError, ValueError, jinja2.TemplateError) as error:
            raise ConfigError(
                f"No usable tokenizer in {folder}: {error}. It must hold tokenizer.json and a chat template, "
                "as the folder of an instruction-tuned Hugging Face model does.",
                param="model_dir",
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._bound = byte_bound(json.loads(spec))
        # A model trained without this role would take it for noise.
        self._knows_developer = "developer" in template
        self.reads_effort = not read.isdisjoint(template_arguments("none"))

    def render(self, messages: Sequence[Message], effort: ReasoningEffort | None = None) -> str:
        """The whole prompt as text. Raises: InvalidRequest when the template refuses the conversation or the effort."""
        turns = [{"role": self._role(message), "content": message.content} for message in messages]
        more = {**self._special_tokens, **template_arguments(effort)}
        try:
            return self._template.render(messages=turns, tools=None, documents=None, add_generation_prompt=True, **more)
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            if effort is not None:
                self.render(messages)  # Raises if the messages are at fault, not the effort.
                raise InvalidRequest(
                    f"The model's chat template refuses the effort '{effort}': {error}", param="reasoning_effort"
                ) from error
            raise InvalidRequest(
                f"The model's chat template refuses these messages: {error}", param="messages"
            ) from error

    def encode(self, messages: Sequence[Message], effort: ReasoningEffort | None = None) -> list[int]:
        return _encoded(self._tokenizer, self.render(messages, effort)).ids

    def count(self, messages: Sequence[Message], effort: ReasoningEffort | None = None) -> int:
        # `len` creates no Python integer per token.
        return len(_encoded(self._tokenizer, self.render(messages, effort)))

    def encode_answer(self, text: str) -> list[int]:
        # An answer has no special tokens: one that spells a special token wrote its characters.
        return _encoded(self._literal, text).ids

    def least(self, messages: Sequence[Message], effort: ReasoningEffort | None = None) -> int:
        return self._bound.least(self.render(messages, effort)) if self._bound else 0

    @cached_property
    def _literal(self) -> tokenizers.Tokenizer:
        """A second tokenizer that reads special tokens as plain text. The switch on the first would affect prompts."""
        literal = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
        literal.encode_special_tokens = True
        return literal

    def _role(self, message: Message) -> str:
        return "system" if message.role == "developer" and not self._knows_developer else message.role


def _encoded(tokenizer: tokenizers.Tokenizer, text: str) -> tokenizers.Encoding:
    """The text's encoding. The template writes the special tokens itself, so none are added."""
    if len(text) <= LONG_CHARS:
        return tokenizer.encode(text, add_special_tokens=False)
    return tokenizer.encode_batch_fast([text], add_special_tokens=False)[0]


class EstimatingTokenizer:
    """Estimates one token per four bytes, for pools without a tokenizer at hand: the simulator and the paid API."""

    #: Without a template it is unknown whether the engine uses the effort.
    reads_effort = True

    def encode(self, messages: Sequence[Message], effort: ReasoningEffort | None = None) -> list[int]:
        return self.encode_answer(self._text(messages))

    def encode_answer(self, text: str) -> list[int]:
        spelled = text.encode()
        return [int.from_bytes(spelled[at : at + 4], "big") for at in range(0, len(spelled), 4)]

    def count(self, messages: Sequence[Message], effort: ReasoningEffort | None = None) -> int:
        return -(-len(self._text(messages).encode()) // 4)

    def least(self, messages: Sequence[Message], effort: ReasoningEffort | None = None) -> int:
        return self.count(messages)

    @staticmethod
    def _text(messages: Sequence[Message]) -> str:
        return "\n".join(f"{message.role}: {message.content}" for message in messages)


class InputTokenizer:
    """Counts and encodes the inputs of embedding jobs, each by itself. Safe to use from many threads.

    Attributes:
        is_matryoshka: True if a vector of the model may be shortened, so that `dimensions` can be set.
    """

    reads_effort = False

    def __init__(self, tokenizer: tokenizers.Tokenizer | None = None, *, is_matryoshka: bool = True) -> None:
        """Args: tokenizer: the model's own; None to estimate one token per four bytes."""
        self._tokenizer, self.is_matryoshka = tokenizer, is_matryoshka
        if tokenizer is not None:
            # A text that is too long is refused. Cut off, it would get the vector of another text.
            tokenizer.no_truncation()
            tokenizer.no_padding()

    @classmethod
    def of(cls, folder: Path, *, is_matryoshka: bool) -> Self:
        """Read a model's folder. Raises: ConfigError."""
        try:
            spec = (folder / "tokenizer.json").read_text(encoding="utf-8")
            return cls(tokenizers.Tokenizer.from_str(spec), is_matryoshka=is_matryoshka)
        except (OSError, ValueError) as error:
            raise ConfigError(f"No usable tokenizer.json in {folder}: {error}.", param="model_dir") from error

    def count_each(self, inputs: Sequence[Message]) -> list[int]:
        """How many tokens each input has, the model's special tokens included. Raises: InvalidRequest."""
        # `len` creates no Python integer per token.
        return [len(encoded) for encoded in self._encoded(inputs)]

    def encode_each(self, inputs: Sequence[Message]) -> list[list[int]]:
        """The token ids of each input. Raises: InvalidRequest."""
        return [encoded if isinstance(encoded, list) else encoded.ids for encoded in self._encoded(inputs)]

    def _encoded(self, inputs: Sequence[Message]) -> Iterator[list[int] | tokenizers.Encoding]:
        if not are_inputs(inputs):
            raise InvalidRequest("This model embeds inputs, and answers no messages.", param="messages")
        texts = self._texts_encoded([each.content for each in inputs if each.role == "input"])
        return (token_ids(each) if each.role == "tokens" else next(texts) for each in inputs)

    def _texts_encoded(self, texts: list[str]) -> Iterator[list[int] | tokenizers.Encoding]:
        if self._tokenizer is not None:
            # Without the GIL, however short the texts are: there may be thousands.
            return iter(self._tokenizer.encode_batch_fast(texts, add_special_tokens=True))
        return map(EstimatingTokenizer().encode_answer, texts)


def _template_text(folder: Path) -> str:
    """The chat template: its own file, or, in older models, an entry of the tokenizer's configuration."""
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    template = _read_json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    if not isinstance(template, str):
        raise ValueError("it has no chat template")
    return template


def _special_tokens(folder: Path) -> dict[str, str]:
    """`bos_token`, `eos_token` and the others, by the names that templates use."""
    entries = _read_json(folder / "special_tokens_map.json") | _read_json(folder / "tokenizer_config.json")
    named = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
    found = {name: entries[name] for name in named if entries.get(name) is not None}
    return {name: token["content"] if isinstance(token, dict) else token for name, token in found.items()}


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's turns for training; it does not change a prompt."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 reads a plain set)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        return jinja2.nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _environment() -> ImmutableSandboxedEnvironment:
    """The environment that chat templates expect: that of transformers' `utils/chat_template_utils.py`."""

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    # The local date, as in transformers.
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # noqa: DTZ005
    return environment
