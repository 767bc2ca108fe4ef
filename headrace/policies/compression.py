"""Compresses a conversation: which parts may change, what is cut away, and what is left. Pure.

`plain` is exact: the same conversation always gives the same. A paragraph or a sentence goes if it stood earlier in the
conversation, word for word; what is protected in it stays in the earlier one. Code, tables and quoted lines stay.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from headrace.config import PoolSettings
from headrace.domain.prompts import Message
from headrace.domain.prompts.compression import CompressChoice, Compression, Cut
from headrace.errors import InvalidRequest
from headrace.policies.reuse import english, german


def chosen(choice: CompressChoice, pool: PoolSettings) -> Compression | None:
    """How a prompt for this pool is compressed; None for not at all.

    Raises: InvalidRequest that names the field: it has no effect.
    """
    method = choice.method or pool.compress
    if method == "off":
        if choice.also is not None:
            message = "It has no effect, because the prompt is not compressed: set 'compress', or leave it out."
            raise InvalidRequest(message, param="compress_also")
        return None
    also = pool.compress_also if choice.also is None else choice.also
    return Compression(method, tuple(sorted(set(also))))


# What must not change: code, JSON, tables, quotations, numbers, names and negations.
#
# When in doubt, a part is protected: a sentence that is taken for code costs a few tokens, a changed line of code may
# cost the answer. Every search takes time in proportion to the text, whatever it contains.

Span = tuple[int, int]

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
#: A whole line: a quotation, indented code, a row of a table, a heading, a line of a program or of JSON.
_SET_LINE = re.compile(
    r" {0,3}>"
    r"|    |\t| {0,3}\t"
    r"|[^|\n]*\|[^|\n]*\||\s*\|"
    r"|\s*#"
    r"|\s*(?:>>>|\.\.\.|\$|@\w|//|/\*|<!--|--)"
    r"|\s*(?:def|class|function|func|fn|struct|enum)\s+\w+\s*[(:{<]"
    r"|\s*(?:import|from|package|using|const|let|var)[ \t]{1,4}[\w.*{},]{1,80}[ \t]{0,4}(?:=|;|$|import\b)"
    r"|\s*\"[^\"\n]*\"\s*:"
)
_SET_END = re.compile(r"[{};\\]\s*$|\)\s*:\s*$")
#: Two words with a gap between them, as in the columns of a table. After the end of a sentence it is a typist's habit.
_GAP = re.compile(r"[^\s.!?:;,](?: {2,}|\t)\S")
_BRACKETS = re.compile(r"[\[\]{}]")
_PAIRS = {"]": "[", "}": "{"}
_WORD = re.compile(r"\S+")
#: A word with one of these is a number, a name, a path, an address, a formula or a piece of code.
_STRANGE = re.compile(r"[\d@/\\_#$%=<>~^|&*+€£§°]|\w[.:]\w|[a-z][A-Z]|[A-Z]{2}|\(\)")
#: The word behind a number may be its unit, whatever white space is between them: else `42 km` counts as said by
#: `42\tkm`, and goes.
_UNIT = re.compile(r"\s+\w+")
_QUOTED = re.compile(
    r"[“„»][^“”„»«\n]*[”“«]"
    r"|«[^«»\n]*»"
    r"|\u2018[^\u2018\n]{0,300}?\u2019(?!\w)"
    r"|(?<!\w)'[^'\n]{1,300}'(?!\w)"
    r"|``[^`\n]{1,300}``|`[^`\n]+`"
    r"|</?[A-Za-z][^<>\n]{0,300}>"
)
_MARK = '"'
_NEGATION = re.compile(
    rf"\b(?:{'|'.join(sorted(english.NEGATIONS | german.NEGATIONS))}|cannot|\w+n['\u2019]t)\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Lines without an empty line between them; fenced code is one, whatever it contains.

    Attributes:
        start, end: in characters; without the line end.
        spans: what must not change in it, in order, without overlaps.
        is_set: True if whole lines of it must not change: it is code, a table or the like, at least in part.
    """

    start: int
    end: int
    spans: tuple[Span, ...]
    is_set: bool


def paragraphs(text: str) -> list[Paragraph]:
    """The paragraphs of a text, with what is protected in each."""
    return [_paragraph(text, *each) for each in _split(text)]


def overlaps(spans: Sequence[Span], start: int, end: int) -> bool:
    """True if a protected span has a character of this piece. Args: spans: in order."""
    at = bisect_right(spans, start, key=lambda span: span[1])
    return at < len(spans) and spans[at][0] < end


def _split(text: str) -> Iterator[tuple[int, int, bool]]:
    """The bounds of each paragraph, and whether it is fenced. A fence that nothing closes reaches to the end."""
    start, end, fence = -1, -1, ""
    for line in _LINE.finditer(text):
        words = line.group().strip()
        if fence:
            end = line.start() + len(line.group().rstrip("\n"))
            if words.startswith(fence) and not words.strip(fence[0]):
                yield start, end, True
                start, fence = -1, ""
            continue
        if opened := _FENCE.match(line.group()):
            if start >= 0:
                yield start, end, False
            start, fence = line.start(), opened.group(1)
        elif not words:
            if start >= 0:
                yield start, end, False
            start = -1
            continue
        elif start < 0:
            start = line.start()
        end = line.start() + len(line.group().rstrip("\n"))
    if start >= 0:
        yield start, len(text) if fence else end, bool(fence)


def _paragraph(text: str, start: int, end: int, is_fenced: bool) -> Paragraph:
    if is_fenced:
        return Paragraph(start, end, ((start, end),), is_set=True)
    part = text[start:end]
    lines, bracketed = list(_set_lines(part)), list(_bracketed(part))
    spans = _union([*lines, *bracketed, *_marked(part), *_found(part), *_strange(part)])
    is_set = bool(lines) or any(part[first] == "{" or "\n" in part[first:last] for first, last in bracketed)
    return Paragraph(start, end, tuple((start + first, start + last) for first, last in spans), is_set)


def _set_lines(text: str) -> Iterator[Span]:
    """Whole lines. One line with a gap is prose with a slip; two in a row are columns."""
    gaps: list[Span] = []
    for line in _LINE.finditer(text):
        words = line.group().rstrip("\n")
        span = line.start(), line.start() + len(words)
        has_gap = bool(_GAP.search(words))
        if _SET_LINE.match(words) or _SET_END.search(words[-200:]) or (has_gap and gaps):
            yield span
        if has_gap and len(gaps) == 1:
            yield gaps[0]
        gaps = [*gaps, span][-2:] if has_gap else []


def _bracketed(text: str) -> Iterator[Span]:
    """Brackets and braces with what is in them. One without its counterpart protects all on its side."""
    opened: list[tuple[str, int]] = []
    for found in _BRACKETS.finditer(text):
        mark = found.group()
        if mark not in _PAIRS:
            opened.append((mark, found.start()))
        elif opened and opened[-1][0] == _PAIRS[mark]:
            _, start = opened.pop()
            if not opened:
                yield start, found.end()
        else:
            yield opened[0][1] if opened else 0, found.end()
            opened = []
    if opened:
        yield opened[0][1], len(text)


def _marked(text: str) -> Iterator[Span]:
    """Text in straight quotation marks. If they do not pair up, all from the first to the last."""
    marks = [at for at, each in enumerate(text) if each == _MARK] if _MARK in text else []
    pairs = list(zip(marks[::2], marks[1::2], strict=False))
    if len(marks) % 2 or any(_is_inside(text, first, last) for first, last in pairs):
        yield marks[0], marks[-1] + 1
        return
    yield from ((first, last + 1) for first, last in pairs)


def _is_inside(text: str, first: int, last: int) -> bool:
    """True if a word character stands before the opening mark or after the closing one, so that these are no pair."""
    return text[first - 1 : first].isalnum() or text[last + 1 : last + 2].isalnum()


def _found(text: str) -> Iterator[Span]:
    yield from (each.span() for each in _QUOTED.finditer(text))
    yield from (each.span() for each in _NEGATION.finditer(text))


def _strange(text: str) -> Iterator[Span]:
    for word in _WORD.finditer(text):
        if not _STRANGE.search(word.group()):
            continue
        unit = _UNIT.match(text, word.end()) if word.group()[-1].isdigit() else None
        yield word.start(), unit.end() if unit else word.end()


def _union(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


# The turns that may change, and the cuts applied to them.


def open_turns(messages: Sequence[Message], compression: Compression) -> list[int]:
    """The messages that may be compressed, by number: no inputs of an embedding, no calls of tools, no outputs."""
    last_turn = max((number for number, each in enumerate(messages) if each.role == "user"), default=-1)

    def is_open(number: int, message: Message) -> bool:
        match message.role:
            case "system" | "developer":
                return "system" in compression.also
            case "user":
                return number != last_turn or "last_turn" in compression.also
            case "assistant":
                return not message.tool_calls
        return False

    return [number for number, message in enumerate(messages) if is_open(number, message)]


def apply(messages: Sequence[Message], cuts: Iterable[Cut]) -> tuple[Message, ...]:
    """The messages without what is cut away. The cuts of a message do not overlap."""
    of_message: dict[int, list[Cut]] = {}
    for cut in cuts:
        of_message.setdefault(cut.message, []).append(cut)
    return tuple(
        replace(message, content=_without(message.content, of_message[number])) if number in of_message else message
        for number, message in enumerate(messages)
    )


def _without(text: str, cuts: Iterable[Cut]) -> str:
    pieces, at = [], 0
    for cut in sorted(cuts, key=lambda each: each.start):
        pieces.append(text[at : cut.start])
        at = max(at, cut.end)
    return "".join([*pieces, text[at:]])


# What a conversation says twice, and white space.

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
