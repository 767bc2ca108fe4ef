"""What kind of answer a request wants, by the way it opens; and the rest of it, without the opening. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from headrace.policies.reuse import english, german

#: Kinds of requests that may be one: "give me a summary of" and "summarize", "when" and "in what year".
_ALIKE = frozenset(
    frozenset(pair)
    for pair in (
        ("what", "do"), ("what", "name"), ("who", "name"), ("name", "do"), ("can-you", "do"),
        ("explain", "what"),
        ("explain", "do"),
        ("explain", "how"),
        ("explain", "name"),
        ("explain", "can-you"),
        ("who", "do"),
        ("where", "where-can"),
        ("can-you", "whether-can"),
        ("when", "when-year"), ("when", "when-time"), ("when", "when-day"), ("how", "how-to"), ("what", "how-much"),
        ("how-to", "do-how"), ("what", "can-you"),
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """A sentence's kind, and its rest.

    Attributes:
        kind: `do` for what opens like no question.
    """

    kind: str
    rest: str


@dataclass(frozen=True, slots=True)
class _Frames:
    courtesy: re.Pattern[str]
    farewell: re.Pattern[str]
    openings: Sequence[tuple[re.Pattern[str], str, str]]


def asked(sentence: str, is_german: bool) -> Asked:
    """Read the opening of a masked sentence."""
    frames = _frames(is_german)
    rest = sentence.strip()
    while (found := frames.courtesy.match(rest)) and found.end():
        rest = rest[found.end() :].lstrip(" ,.:;-")
    end = re.search(r"[\s.!?]*$", rest)
    rest = rest[: end.start()] if end else rest
    rest = frames.farewell.sub("", rest)
    if (opened := _opened(rest, frames)).kind == "do" and ", " in rest:
        first, _, second = rest.partition(", ")
        later = _opened(second, frames)
        return Asked(later.kind, f"{first}, {later.rest}") if later.kind != "do" else opened
    return opened


def _opened(rest: str, frames: "_Frames") -> Asked:
    for pattern, kind, replacement in frames.openings:
        if found := pattern.match(rest):
            return Asked(kind, f"{found.expand(replacement)} {rest[found.end() :]}".strip())
    return Asked("do", rest)


def is_alike(one: str, other: str) -> bool:
    """Whether requests of these kinds may want the same answer."""
    return one == other or frozenset((one, other)) in _ALIKE


@cache
def _frames(is_german: bool) -> _Frames:
    language = german if is_german else english
    flags = re.IGNORECASE
    return _Frames(
        courtesy=re.compile(f"(?:{_one_line(language.COURTESY)})", flags),
        farewell=re.compile(rf"(?:{_one_line(language.FAREWELL)})\s*$", flags),
        openings=[
            (re.compile(rf"(?:{pattern})\s*", flags), kind, replacement)
            for kind, pattern, replacement in _openings(language.FRAMES, language.PARTS)
        ],
    )


def _openings(frames: str, parts: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """The kind, pattern and replacement of each line of a table of frames."""
    for line in frames.replace("\n  ", "").splitlines():
        if not line or line.startswith("# "):
            continue
        kind, _, rest = line.partition(": ")
        pattern, _, replacement = rest.partition(" => ")
        for name, part in parts.items():
            pattern = pattern.replace(f"<{name}>", part)
        yield kind, pattern, replacement


def _one_line(pattern: str) -> str:
    """A pattern without the line breaks, and the spaces around its `|` at their ends."""
    return re.sub(r"\s*\n\s*", "", pattern.strip()).replace(" | ", "|")
