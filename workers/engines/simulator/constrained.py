"""JSON that keeps to a schema: choices at random within the schema's grammar. Pure.

The grammar is llguidance's, which vLLM uses too. So a schema that is refused here is one that vLLM's guided decoding
refuses, and what is written is valid by construction.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from random import Random
from typing import Any

from llguidance import LLMatcher, LLTokenizer

from headrace.errors import PromptRejected
from headrace.policies.tokens import PromptTokenizer
from workers.engines.schemas import check_schemas

WORDS = ("water", "falls", "through", "the", "headrace", "and", "turns", "a", "wheel")
#: A text of each format that llguidance knows. Also of use where a pattern asks for something alike.
SAMPLES = (
    *("2026-11-28T09:30:00Z", "2026-11-28", "09:30:00Z", "P1D", "water@headrace.example", "headrace.example"),
    *("192.0.2.1", "2001:db8::1", "https://headrace.example/water", "7", "water_1"),
)
#: More bytes than this for each token that a text may have are never written: a token has four on average.
BYTES_A_TOKEN = 8
#: Levels of brackets at which nothing optional is written any more.
DEEPEST = 6
#: More bytes than this may follow in a text without a pattern, and in no other.
_FREE = 60
_DIGITS = frozenset(b"0123456789")
_NUMERIC = _DIGITS | frozenset(b"+-.eE")
_QUOTE, _COMMA, _MINUS, _NULL = b'",-n'


def write(schema: Mapping[str, Any], seed: str, most_bytes: int) -> tuple[str, bool]:
    """A JSON text of the schema, always the same for a seed.

    Args: most_bytes: where it is broken off. From half of that on, nothing optional is written.

    Returns: the text, and whether it is whole.

    Raises: PromptRejected for a schema with a keyword that llguidance lacks, that no value keeps to, or that is too
        large.
    """
    check_schemas(schema)
    matcher = _matcher(schema)
    if matcher.is_error():
        raise _refused(matcher.get_error())
    strict = _matcher(stricter(schema))
    names = tuple(dict.fromkeys(_names(schema)))
    return _Writer(matcher if strict.is_error() else strict, names, Random(seed), most_bytes).write()


def in_tokens(text: str, tokenizer: PromptTokenizer) -> list[str]:
    """The text by token. A character may be several tokens: it is in the last of them, and the others are left out."""
    _, ends = tokenizer.encode_ends(text)
    cuts = sorted({0, *ends, len(text)})
    return [text[start:end] for start, end in itertools.pairwise(cuts)]


class _Writer:
    """One text in the making."""

    def __init__(self, matcher: LLMatcher, names: tuple[str, ...], chance: Random, most_bytes: int) -> None:
        """Args: names: of the properties that the schema names, in its order."""
        self._matcher, self._names, self._chance, self._most_bytes = matcher, names, chance, most_bytes
        self._written = bytearray()
        self._depth = 0
        self._in_text = self._is_escaped = False
        self._words = self._endless_words()

    def write(self) -> tuple[str, bool]:
        while not (self._matcher.is_accepting() or len(self._written) >= self._most_bytes):
            self._take(self._matcher.compute_ff_bytes() or self._choose())
        return self._written[: self._most_bytes].decode(errors="ignore"), self._matcher.is_accepting()

    def _take(self, raw: bytes) -> None:
        if not self._matcher.consume_tokens(list(raw)):
            raise _refused(self._matcher.get_error())
        self._written += raw
        for byte in raw:
            if self._in_text:
                self._in_text = byte != _QUOTE or self._is_escaped
                self._is_escaped = byte == ord("\\") and not self._is_escaped
            elif byte == _QUOTE:
                self._in_text = True
            elif byte in b"{[":
                self._depth += 1
            elif byte in b"}]":
                self._depth -= 1

    def _choose(self) -> bytes:
        """What is written next, where the grammar leaves a choice."""
        allowed = self._allowed()
        if not allowed:
            raise _refused(self._matcher.get_error())
        if self._in_text:
            return self._text(allowed)
        if self._is_in_number:
            # A number ends where it may.
            allowed = allowed - _NUMERIC or allowed & _DIGITS or allowed
        if closers := allowed & frozenset(b"]}"):
            others = allowed - closers
            return bytes(closers) if not others or self._is_enough(others, closers) else self._more(others)
        return self._more(allowed)

    @property
    def _is_in_number(self) -> bool:
        return bool(self._written) and self._written[-1] in _NUMERIC

    def _more(self, allowed: frozenset[int]) -> bytes:
        if _COMMA in allowed:
            return b","
        return self._any(allowed) if allowed <= _NUMERIC and self._is_in_number else self._value(allowed)

    def _is_enough(self, others: frozenset[int], closers: frozenset[int]) -> bool:
        """Whether a list or an object is closed here. It may go on, with an item or, after a comma, another one."""
        if self._is_late():
            return True
        if _COMMA in others and (closers == frozenset(b"]") or self._is_free(b', "')):
            return self._chance.random() < 0.6
        return False

    def _is_late(self) -> bool:
        """Whether to leave out what may be left out: more often the deeper it is, and always in a long text."""
        is_deep = self._chance.random() < (self._depth - 1) / DEEPEST
        return is_deep or 2 * len(self._written) > self._most_bytes

    def _value(self, allowed: frozenset[int]) -> bytes:
        """The first byte of a value, or the whole of a number. None of `null` unless it ends what is too deep."""
        kinds = [frozenset(b'"'), _DIGITS | {_MINUS}, frozenset(b"tf"), frozenset(b"{"), frozenset(b"[")]
        found = [some for kind in kinds if (some := kind & allowed)]
        if self._is_late():
            found = [some for some in found if not some & frozenset(b"{[")] or found
            found = [frozenset({_NULL})] if _NULL in allowed else found
        chosen = self._chance.choice(found) if found else allowed
        if chosen & kinds[1]:
            number = str(self._chance.randint(1, 99)).encode()
            return number if self._fits(number) else self._any(chosen - {_MINUS} or chosen)
        return self._any(chosen)

    def _text(self, allowed: frozenset[int]) -> bytes:
        """The rest of a text, or its next character."""
        if self._written[-1] == _QUOTE:
            name = f'{next(self._words)}": '.encode()
            if self._fits(name):  # The name of a property that the schema does not name.
                return name
            for property_name in self._names:
                if self._fits(name := f"{json.dumps(property_name, ensure_ascii=False)}: ".encode()[1:]):
                    return name
            for text in self._texts():
                if self._fits(whole := f'{text}"'.encode()):
                    return whole
        if _QUOTE in allowed:
            return b'"'
        if self._fits(word := f"{next(self._words)} ".encode()):
            return word
        letters = bytes(byte for byte in allowed if chr(byte).isascii() and chr(byte).isalnum())
        return self._any(frozenset(letters) or allowed)

    def _texts(self) -> Iterator[str]:
        at = self._chance.randrange(len(WORDS))
        words = WORDS[at:] + WORDS[:at]
        yield " ".join(words[:2])
        yield from words
        yield _uuid(self._chance)
        yield from SAMPLES

    @staticmethod
    def _endless_words() -> Iterator[str]:
        yield from WORDS
        for number in itertools.count(2):
            yield from (f"{word}{number}" for word in WORDS)

    def _is_free(self, raw: bytes) -> bool:
        """Whether a text of any characters could follow after these bytes."""
        taken = self._matcher.try_consume_tokens(list(raw))
        is_free = taken == len(raw) and len(self._allowed()) > _FREE
        self._matcher.rollback(taken)
        return is_free

    def _fits(self, raw: bytes) -> bool:
        return bool(self._matcher.validate_tokens(list(raw)) == len(raw))

    def _allowed(self) -> frozenset[int]:
        mask = self._matcher.compute_bitmask()
        return frozenset(byte for byte in range(256) if mask[byte // 8] >> byte % 8 & 1)

    def _any(self, allowed: frozenset[int]) -> bytes:
        return bytes([self._chance.choice(sorted(allowed))])


@cache
def _bytes() -> LLTokenizer:
    """A vocabulary of single bytes."""
    return LLTokenizer("byte")


def _matcher(schema: Mapping[str, Any]) -> LLMatcher:
    try:
        grammar = LLMatcher.grammar_from_json_schema(
            json.dumps(schema),
            overrides={"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "lenient": False},
        )
    except ValueError as error:
        raise _refused(str(error)) from error
    return LLMatcher(_bytes(), grammar, log_level=0)


def stricter(schema: Any) -> Any:
    """A schema that allows nothing more: no unnamed properties, unless it allows or composes them, and closed bounds.

    This tells optional properties from unnamed ones. llguidance admits 0 as a number between 0 and 0.1, exclusive.
    """
    if isinstance(schema, list):
        return [stricter(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    made = {name: _stricter_at(name, each) for name, each in schema.items()}
    open_by = {"additionalProperties", "patternProperties", "unevaluatedProperties", "allOf", "anyOf", "oneOf", "$ref"}
    if isinstance(schema.get("properties"), Mapping) and not open_by & schema.keys():
        made["additionalProperties"] = False
    made |= _closed_bounds(schema)
    return made


def _stricter_at(keyword: str, value: Any) -> Any:
    # Values of the first four are no schemas. What `allOf` joins may have properties that only another part names.
    if keyword in ("const", "enum", "default", "examples", "allOf"):
        return value
    if keyword in ("properties", "patternProperties", "$defs", "definitions") and isinstance(value, Mapping):
        return {name: stricter(each) for name, each in value.items()}
    return stricter(value)


def _closed_bounds(schema: Mapping[str, Any]) -> dict[str, float]:
    """A minimum and a maximum just inside the exclusive ones."""
    given = {
        name: value
        for name in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
        if isinstance(value := schema.get(name), int | float) and not isinstance(value, bool)
    }
    above, below = given.get("exclusiveMinimum", -math.inf), given.get("exclusiveMaximum", math.inf)
    low, high = max(given.get("minimum", above), above), min(given.get("maximum", below), below)
    step = min(1, (high - low) / 4)
    closed = {}
    if "exclusiveMinimum" in given:
        closed["minimum"] = max(low, above + step)
    if "exclusiveMaximum" in given:
        closed["maximum"] = min(high, below - step)
    return closed


def _names(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for each in schema:
            yield from _names(each)
    if isinstance(schema, Mapping):
        for name, each in schema.items():
            if name == "properties" and isinstance(each, Mapping):
                yield from each
            yield from _names(each)


def _uuid(chance: Random) -> str:
    hexadecimal = f"{chance.getrandbits(128):032x}"
    return f"{hexadecimal[:8]}-{hexadecimal[8:12]}-4{hexadecimal[13:16]}-8{hexadecimal[17:20]}-{hexadecimal[20:]}"


def _refused(error: str) -> PromptRejected:
    reason = " ".join(error.split())[:300] or "no value keeps to it"
    return PromptRejected(f"This JSON schema cannot guide the answer: {reason}", param="response_format")
