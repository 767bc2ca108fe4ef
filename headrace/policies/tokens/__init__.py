"""Tokens: counts and encodes a prompt, or an embedding's inputs, with the model's own tokenizer, without torch.

Knows a model's files; knows nothing about job states, HTTP or engines.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import tokenizers

from headrace.domain.prompts import Message, ReasoningEffort, is_plain, plain_ids
from headrace.domain.prompts.embeddings import are_inputs, token_ids
from headrace.errors import ConfigError, InvalidRequest
from headrace.policies.tokens.chat_template import ChatTemplate, Kwargs

#: A text with more characters is encoded without the GIL, since it would block every other thread. A short text takes
#: less than a millisecond, less than a busy process needs to get the GIL back.
LONG_CHARS = 2_000
#: The files that counting needs: a few MB, while the weights have many GB.
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "config.json")


class PromptTokenizer(Protocol):
    """Counts and encodes the tokens of prompts. `kwargs` are variables of the chat template, `tools` among them.

    Attributes:
        reads_effort: False if the reasoning effort does not change the prompt.
        reads_tools: False if the prompt has no word for tools.
    """

    reads_effort: bool
    reads_tools: bool

    def encode(
        self, messages: Sequence[Message], effort: ReasoningEffort | None = None, kwargs: Kwargs | None = None
    ) -> list[int]:
        """The token ids of the whole prompt, generation prompt included. Raises: InvalidRequest."""
        ...

    def count(
        self, messages: Sequence[Message], effort: ReasoningEffort | None = None, kwargs: Kwargs | None = None
    ) -> int:
        """How many tokens the whole prompt has. Raises: InvalidRequest."""
        ...

    def encode_answer(self, text: str) -> list[int]:
        """The token ids of the beginning of an answer, which follow those of its prompt."""
        ...

    def encode_ends(self, text: str) -> tuple[list[int], list[int]]:
        """The token ids of a text without a template, and where each token ends in it, in characters."""
        ...

    def least(
        self, messages: Sequence[Message], effort: ReasoningEffort | None = None, kwargs: Kwargs | None = None
    ) -> int:
        """A lower bound of the count, cheap for any length; 0 if none is proven. Raises: InvalidRequest."""
        ...

    def encode_text(self, text: str, *, adds_special: bool) -> list[int]:
        """The token ids of a text without a chat template. Special tokens that it spells are read as such.

        Args: adds_special: whether the tokens that the model expects around a text are added.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these tokens, special ones included. Ids that the model does not have are left out."""
        ...

    def spell(self, ids: Sequence[int]) -> list[str]:
        """Each token as the vocabulary spells it. Raises: InvalidRequest for an id that the model does not have."""
        ...


class Tokenizer:
    """A model's own chat template and tokenizer. Safe to use from many threads."""

    def __init__(self, folder: Path, chat_template: Path | None = None) -> None:
        """Read a model's folder. Args: chat_template: a file, in place of the model's own. Raises: ConfigError."""
        try:
            spec = (folder / "tokenizer.json").read_text(encoding="utf-8")
            self._tokenizer = tokenizers.Tokenizer.from_str(spec)
            template = ChatTemplate(folder, chat_template)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"No usable tokenizer in {folder}: {error}. It must hold tokenizer.json and a chat template, "
                "as the folder of an instruction-tuned Hugging Face model does.",
                param="model_dir",
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._bound = byte_bound(json.loads(spec))
        self.render = template.render
        self.reads_effort, self.reads_tools = template.reads_effort, template.reads_tools

    def encode(
        self, messages: Sequence[Message], effort: ReasoningEffort | None = None, kwargs: Kwargs | None = None
    ) -> list[int]:
        if is_plain(messages):
            return self._plain(messages[0])
        return _encoded(self._tokenizer, self.render(messages, effort, kwargs)).ids

    def count(
        self, messages: Sequence[Message], effort: ReasoningEffort | None = None, kwargs: Kwargs | None = None
    ) -> int:
        if is_plain(messages):
            return len(self._plain(messages[0]))
        # `len` creates no Python integer per token.
        return len(_encoded(self._tokenizer, self.render(messages, effort, kwargs)))

    def encode_answer(self, text: str) -> list[int]:
        # An answer has no special tokens: one that spells a special token wrote its characters.
        return _encoded(self._literal, text).ids

    def encode_ends(self, text: str) -> tuple[list[int], list[int]]:
        # `encode_batch_fast` returns no offsets. This one also releases the GIL.
        encoded = self._literal.encode_batch([text], add_special_tokens=False)[0]
        return encoded.ids, [end for _, end in encoded.offsets]

    def least(
        self, messages: Sequence[Message], effort: ReasoningEffort | None = None, kwargs: Kwargs | None = None
    ) -> int:
        if self._bound is None:
            return 0
        if is_plain(messages):
            ids = plain_ids(messages[0])
            return self._bound.least(messages[0].content) if ids is None else len(ids)
        return self._bound.least(self.render(messages, effort, kwargs))

    def _plain(self, prompt: Message) -> list[int]:
        ids = plain_ids(prompt)
        return self.encode_text(prompt.content, adds_special=True) if ids is None else ids

    def encode_text(self, text: str, *, adds_special: bool) -> list[int]:
        return self._tokenizer.encode_batch_fast([text], add_special_tokens=adds_special)[0].ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def spell(self, ids: Sequence[int]) -> list[str]:
        spelled = [(number, self._tokenizer.id_to_token(number)) for number in ids]
        if unknown := [number for number, token in spelled if token is None]:
            raise InvalidRequest(f"The model has no token {unknown[0]}.", param="tokens")
        return [token or "" for _, token in spelled]

    @cached_property
    def _literal(self) -> tokenizers.Tokenizer:
        """A second tokenizer that reads special tokens as plain text. The switch on the first would affect prompts."""
        literal = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
        literal.encode_special_tokens = True
        return literal


def _encoded(tokenizer: tokenizers.Tokenizer, text: str) -> tokenizers.Encoding:
    """The text's encoding. The template writes the special tokens itself, so none are added."""
    if len(text) <= LONG_CHARS:
        return tokenizer.encode(text, add_special_tokens=False)
    # A batch is encoded without the GIL.
    return tokenizer.encode_batch_fast([text], add_special_tokens=False)[0]


class EstimatingTokenizer:
    """Estimates one token per four bytes, for pools without a tokenizer at hand: the simulator and the paid API."""

    #: Without a template it is unknown whether the engine uses the effort, and tools.
    reads_effort = reads_tools = True

    def encode(
        self, messages: Sequence[Message], effort: ReasoningEffort | None = None, kwargs: Kwargs | None = None
    ) -> list[int]:
        ids = plain_ids(messages[0])
        return self.encode_answer(self._text(messages, kwargs)) if ids is None else ids

    def encode_answer(self, text: str) -> list[int]:
        spelled = text.encode()
        return [int.from_bytes(spelled[at : at + 4], "big") for at in range(0, len(spelled), 4)]

    def encode_ends(self, text: str) -> tuple[list[int], list[int]]:
        ends, size_bytes = list[int](), 0
        for at, character in enumerate(text, 1):
            size_bytes += len(character.encode())
            ends += [at] * (size_bytes // 4 - len(ends))
        return self.encode_answer(text), ends + [len(text)] * (size_bytes % 4 > 0)

    def count(
        self, messages: Sequence[Message], effort: ReasoningEffort | None = None, kwargs: Kwargs | None = None
    ) -> int:
        ids = plain_ids(messages[0])
        return -(-len(self._text(messages, kwargs).encode()) // 4) if ids is None else len(ids)

    def least(
        self, messages: Sequence[Message], effort: ReasoningEffort | None = None, kwargs: Kwargs | None = None
    ) -> int:
        return self.count(messages, effort, kwargs)

    def encode_text(self, text: str, *, adds_special: bool) -> list[int]:
        return self.encode_answer(text)

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(map(_spelled, ids)).decode(errors="replace")

    def spell(self, ids: Sequence[int]) -> list[str]:
        return [_spelled(number).decode(errors="replace") for number in ids]

    @staticmethod
    def _text(messages: Sequence[Message], kwargs: Kwargs | None) -> str:
        if is_plain(messages):
            return messages[0].content
        tools = [json.dumps(tool) for tool in (kwargs or {}).get("tools", ())]
        return "\n".join([*tools, *map(_turn, messages)])


def _spelled(number: int) -> bytes:
    """The bytes of one estimated token."""
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")


def _turn(message: Message) -> str:
    speaker = message.role if message.name is None else f"{message.role} {message.name}"
    calls = [json.dumps(call.to_fields()) for call in message.tool_calls]
    return "\n".join([f"{speaker}: {message.content}", *calls])


class InputTokenizer:
    """Counts and encodes the inputs of embedding jobs, each by itself. Safe to use from many threads.

    Attributes: is_matryoshka: True if a vector of the model may be shortened, so that `dimensions` can be set.
    """

    reads_effort = reads_tools = False

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


# A lower bound of tokens by bytes, proven by the structure of a tokenizer.json.


@dataclass(frozen=True, slots=True)
class ByteBound:
    """A proven lower bound of tokens per byte.

    Attributes:
        bytes_per_token: the most bytes of UTF-8 text that one token can represent.
        unspelled: the bytes missing from the vocabulary; the tokenizer drops them.
    """

    bytes_per_token: float
    unspelled: bytes

    def least(self, text: str) -> int:
        """The least number of tokens that `text` can have."""
        return math.ceil(len(text.encode().translate(None, delete=self.unspelled)) / self.bytes_per_token)


def byte_bound(spec: Mapping[str, Any]) -> ByteBound | None:
    """The bound that a tokenizer.json proves; None if it proves none.

    It holds for BPE over bytes, and for BPE with byte fallback, if no earlier step drops text. Every byte of the
    normalised text is then in exactly one token, and the longest token of the vocabulary bounds them all.
    """
    model, added = spec["model"], spec.get("added_tokens") or ()
    steps = list(_steps(spec.get("pre_tokenizer"), "pretokenizers"))
    by_bytes = any(step["type"] == "ByteLevel" for step in steps)
    shrinkages = [_shrinkage(step) for step in _steps(spec.get("normalizer"), "normalizers")]
    known = [shrinkage for shrinkage in shrinkages if shrinkage is not None]
    unspelled = bytes(byte for byte in range(256) if _spelling(byte, by_bytes) not in model["vocab"])
    proven = (
        model.get("type", "BPE") == "BPE"
        and all(_keeps_text(step) for step in steps)
        and len(known) == len(shrinkages)
        # Fallback needs every byte of a character, and a normaliser may turn other bytes into unspelled ones.
        and ((by_bytes and not shrinkages) or not unspelled.translate(None, delete=_NEVER_IN_UTF8))
        and (by_bytes or model.get("byte_fallback"))
        # A token with lstrip or rstrip absorbs any amount of white space around it.
        and not any(token.get("lstrip") or token.get("rstrip") for token in added)
    )
    if not proven:
        return None
    # A byte-level vocabulary spells every byte as one character.
    longest = max(len(token) if by_bytes else len(token.encode()) for token in model["vocab"])
    longest_added = max((len(token["content"].encode()) for token in added), default=0)
    return ByteBound(max(longest, longest_added) * math.prod(known), unspelled)


_NEVER_IN_UTF8 = bytes([0xC0, 0xC1, *range(0xF5, 0x100)])
#: GPT-2's spelling: a printable Latin-1 byte is its own character; the other bytes are the characters from 256 on.
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = tuple(byte for byte in range(256) if byte not in _PRINTABLE)


def _spelling(byte: int, by_bytes: bool) -> str:
    """How a vocabulary spells one byte."""
    if not by_bytes:
        return f"<0x{byte:02X}>"
    return chr(byte if byte in _PRINTABLE else 256 + _OTHERS.index(byte))


def _steps(step: Mapping[str, Any] | None, parts: str) -> Iterator[Mapping[str, Any]]:
    if step is not None:
        if step["type"] == "Sequence":
            for part in step[parts]:
                yield from _steps(part, parts)
        else:
            yield step


def _keeps_text(step: Mapping[str, Any]) -> bool:
    if step["type"] == "Split":
        return bool(step["behavior"] != "Removed")
    return step["type"] in {"ByteLevel", "Digits", "Metaspace"}


def _shrinkage(step: Mapping[str, Any]) -> float | None:
    """The largest factor by which a normaliser can shorten UTF-8 text; None if unknown."""
    match step:
        case {"type": "NFC"}:
            return 3.5  # The maximum over all of Unicode: seven bytes become the two of U+0390.
        case {"type": "Prepend"}:
            return 1.0
        case {"type": "Replace", "pattern": {"String": old}, "content": new}:
            return max(1.0, len(old.encode()) / len(new.encode())) if new else None
    return None
