"""A lower bound of a text's token count from its byte count, proven by the tokenizer.json.

Pure: knows the file's structure; knows neither the tokenizers library nor any model.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


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
