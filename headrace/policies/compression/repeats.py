"""Cuts what a conversation says twice, and white space. Pure, and exact: the same conversation always gives the same.

A paragraph or a sentence goes if it stood earlier in the conversation, word for word; what is protected in it stays in
the earlier one. Code, tables and quoted lines stay even if they are repeated.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from headrace.domain.compression import Compression, Cut
from headrace.domain.prompts import Message
from headrace.policies.compression.conversation import apply, open_turns
from headrace.policies.compression.protected import Paragraph, Span, overlaps, paragraphs

#: Characters below which a repetition is a way of speaking ("Yes, please.") and not boilerplate.
LEAST_CHARS = 40

_SPACES = re.compile(r"[ \t]+")
#: Between two sentences, or before an item of a list.
BETWEEN_SENTENCES = re.compile(r"(?<=[.!?…])\s+|\n[ \t]*(?=[-*•]\s)")


@dataclass(frozen=True, slots=True)
class _Piece:
    """A sentence.

    Attributes:
        last: its end; `end` is that of the white space behind it.
        is_repeated: it stood earlier in the conversation.
    """

    start: int
    last: int
    end: int
    is_repeated: bool


def plain(messages: Sequence[Message], compression: Compression) -> tuple[Message, ...]:
    """The messages without repetitions and superfluous white space. Of a message, one paragraph is always left."""
    may_change, seen, cuts = set(open_turns(messages, compression)), set[str](), list[Cut]()
    for number, message in enumerate(messages):
        spans = _cuts(message.content, seen)
        cuts += [Cut(number, start, end) for start, end in spans if number in may_change]
    return apply(messages, cuts)


def _cuts(text: str, seen: set[str]) -> list[Span]:
    """What can go of one message. Args: seen: what the conversation has said by now; this message is added."""
    found, kept, within = paragraphs(text), list[Paragraph](), list[Span]()
    for each in found:
        key = _key(text, each.start, each.end, each.spans)
        # In this order: a paragraph of one sentence has the key of that sentence.
        is_known = len(key) >= LEAST_CHARS and key in seen
        pieces = _pieces(text, each, seen)
        seen.add(key)
        is_repeated = is_known or _is_said_in_pieces(each, pieces)
        if each.is_set or not is_repeated:
            kept.append(each)
            within += _sentences(each, pieces)
    # If all of it stood earlier, its first paragraph stays.
    kept = kept or found[:1]
    return [*within, *_between(text, kept), *(span for each in kept for span in _spaces(text, each))]


def _key(text: str, start: int, end: int, spans: Sequence[Span]) -> str:
    """Equal for two pieces that say the same: their words, and the white space of what is protected. Empty for none."""
    said = " ".join(text[start:end].split()).lstrip("-*• ")
    inside = (text[max(start, first) : min(end, last)] for first, last in spans if first < end and last > start)
    exact = [each for each in inside if each != " ".join(each.split())]
    return "\0".join([said, *exact]) if said else ""


def _is_said_in_pieces(paragraph: Paragraph, pieces: Sequence[_Piece]) -> bool:
    """Whether each sentence stood earlier, so that nothing protected is lost: none of it reaches over two sentences."""
    if not pieces or not all(piece.is_repeated for piece in pieces):
        return False
    return not any(overlaps(paragraph.spans, piece.last, piece.end) for piece in pieces)


def _pieces(text: str, paragraph: Paragraph, seen: set[str]) -> tuple[_Piece, ...]:
    """The sentences of a paragraph. They count as seen from now on."""
    pieces, start = [], paragraph.start
    gaps = BETWEEN_SENTENCES.finditer(text, paragraph.start, paragraph.end)
    for last, end in (*(gap.span() for gap in gaps), (paragraph.end, paragraph.end)):
        if key := _key(text, start, last, paragraph.spans):
            pieces.append(_Piece(start, last, end, is_repeated=len(key) >= LEAST_CHARS and key in seen))
            seen.add(key)
        start = end
    return tuple(pieces)


def _sentences(paragraph: Paragraph, pieces: Sequence[_Piece]) -> Iterator[Span]:
    """The sentences of a paragraph that stood earlier and have nothing protected, with the space behind them."""
    kept = [each for each in pieces if not each.is_repeated or overlaps(paragraph.spans, each.start, each.end)]
    if paragraph.is_set or not kept:
        return
    yield paragraph.start, kept[0].start
    for before, after in pairwise(kept):
        yield before.end, after.start
    if not overlaps(paragraph.spans, kept[-1].last, paragraph.end):
        yield kept[-1].last, paragraph.end


def _spaces(text: str, paragraph: Paragraph) -> Iterator[Span]:
    """White space at the ends of lines, and more than one space in a row. Indentation stays."""
    for found in _SPACES.finditer(text, paragraph.start, paragraph.end):
        start, end = found.span()
        if overlaps(paragraph.spans, start, end):
            continue
        if end == paragraph.end or text[end] == "\n":
            yield start, end
        elif start > paragraph.start and text[start - 1] != "\n":
            yield start + 1, end


def _between(text: str, kept: Sequence[Paragraph]) -> Iterator[Span]:
    """What stands between, before and behind the paragraphs that are left. One empty line stays between two."""
    if not kept:
        return
    yield 0, kept[0].start
    for before, after in pairwise(kept):
        if after.start - 1 > before.end + 1:
            yield before.end + 1, after.start - 1
    yield kept[-1].end, len(text)
