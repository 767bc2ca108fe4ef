"""The parts of a text that compression must not change: code, JSON, tables, quotations, numbers, names and negations.

Pure. When in doubt, a part is protected: a sentence that is taken for code costs a few tokens, a changed line of code
may cost the answer. Every search takes time in proportion to the text, whatever it contains.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from headrace.policies.reuse import english, german

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
