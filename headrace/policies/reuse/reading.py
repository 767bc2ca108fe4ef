"""A request as the guard compares it: what it asks for, about what, in which order, under which conditions. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from headrace.policies.reuse import english, german
from headrace.policies.reuse.grammar import Grammar, grammar_of
from headrace.policies.reuse.items import items, mask, sentences
from headrace.policies.reuse.lexicon import words_of
from headrace.policies.reuse.terms import Chunk, Term, chunks_of

# What kind of answer a request wants, by the way it opens; and the rest of it, without the opening.

#: Kinds of requests that may be one: "give me a summary of" and "summarize", "when" and "in what year".
_ALIKE = frozenset(
    frozenset(pair)
    for pair in (
        ("what", "do"), ("what", "name"), ("who", "name"), ("name", "do"), ("can-you", "do"),
        ("explain", "what"), ("explain", "do"), ("explain", "how"), ("explain", "name"), ("explain", "can-you"),
        ("who", "do"), ("where", "where-can"), ("can-you", "whether-can"),
        ("when", "when-year"), ("when", "when-time"), ("when", "when-day"), ("how", "how-to"), ("what", "how-much"),
        ("how-to", "do-how"), ("what", "can-you"),
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """A sentence's kind, and its rest.

    Attributes: kind: `do` for what opens like no question.
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


_WORD = re.compile(r"[^\W\d_]+")
#: Who speaks and who is spoken to: subjects, and what belongs to them.
_SUBJECTS = {**dict.fromkeys(["i", "we"], "1"), "you": "2"}
_FIRST, _SECOND = ("my", "mine", "our", "ours"), ("your", "yours")
_OWNED = {**dict.fromkeys(_FIRST, "1"), **dict.fromkeys(_SECOND, "2")}
_SPEAKERS = {**dict.fromkeys(["i", "we", "me", "us", *_FIRST], "1"), **dict.fromkeys(["you", *_SECOND], "2")}
_BE = words_of("is are was were be been being am")
_PASSIVE = words_of("wird werden wurde wurden worden")
#: Who does what anybody does.
_ANYBODY = words_of("i we you one people they man ich wir someone anyone")
_PARTICIPLES = words_of(
    "made built done written sent paid found kept cut held sold bought caught taught told known seen given taken eaten "
    "hidden beaten bitten chosen driven broken stolen spoken worn thrown grown drawn led left lost won hit hurt shot "
    "fed bred read put set let"
)
_TENSES = {
    "past": words_of("was were did had"),
    "present": words_of("is are am do does"),
    "future": words_of("will"),
}
_GERMAN_TENSES = {"past": words_of("war waren hatte hatten wurde wurden"), "present": words_of("ist sind")}


@dataclass(frozen=True, slots=True)
class Reading:
    """A request, read.

    Attributes:
        kinds: what its sentences ask for; see `Asked`.
        chunks: what it is about.
        owners: whose things it speaks of: `own` of its subject, else `1` or `2` for the person.
        tense: `past`, `present` or `future`; empty where its auxiliaries do not agree, or where it has none.
        voice: `passive`, or empty.
        has_any_doer: an active text whose doer is anybody, so that a passive one may say the same.
        speakers: who of "I" and "you" does something to the other, in order; empty where not both appear.
        duty: `must` or `may`; empty without such a word.
    """

    grammar: Grammar
    kinds: tuple[str, ...]
    chunks: tuple[Chunk, ...]
    owners: frozenset[str]
    tense: str
    voice: str
    has_any_doer: bool
    speakers: tuple[str, ...]
    duty: str

    def terms(self) -> Iterator[Term]:
        for chunk in self.chunks:
            yield from chunk.terms


def read(text: str, is_german: bool) -> Reading:
    """Read a request in German or English."""
    grammar, masked = grammar_of(is_german), mask(text)
    kinds: list[str] = []
    chunks: list[Chunk] = []
    speakers: list[str] = []
    for sentence in sentences(masked.text):
        wanted = asked(sentence, is_german)
        if wanted.kind != "do":
            kinds.append(wanted.kind)
        chunks += chunks_of(items(wanted.rest, masked.spans, is_german), grammar)
        speakers += [_SPEAKERS[word] for word in _words(wanted.rest) if word in _SPEAKERS]
    words = _words(masked.text)
    voice = _voice(words, is_german)
    return Reading(
        grammar=grammar,
        kinds=tuple(kinds),
        chunks=tuple(chunks),
        owners=_owners(words),
        tense=_tense(words, is_german),
        voice=voice,
        has_any_doer=not voice and bool(_ANYBODY & set(words) or _BE & set(words)),
        speakers=tuple(speakers) if len(set(speakers)) > 1 else (),
        duty=_duty(" ".join(words)),
    )


def plain(text: str) -> tuple[str, ...]:
    """A text without regard to case, to spaces between words and to its end: all that may differ without a grammar."""
    masked = mask(text)
    # Tried once for each run of spaces: from each space of it, the time would be the square of their number.
    close = re.sub(r"(?<!\s)\s++(?=[?!;:.,](?:\s|$))", "", masked.text.casefold())
    return (*close.rstrip(" .!?").split(), *masked.spans)


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _voice(words: list[str], is_german: bool) -> str:
    """Whether something is done to what the text speaks of: an auxiliary, and a participle after it."""
    auxiliaries = _PASSIVE if is_german else _BE
    for at, word in enumerate(words):
        if word in auxiliaries and any(_is_participle(later, is_german) for later in words[at + 1 :]):
            return "passive"
    return ""


def _is_participle(word: str, is_german: bool) -> bool:
    if is_german:
        return bool(re.fullmatch(r"\w*ge\w{2,}(?:t|en)|\w{4,}iert", word))
    return word in _PARTICIPLES or (len(word) > 4 and word.endswith("ed") and not word.endswith("eed"))


def _duty(text: str) -> str:
    if re.search(r"\b(?:must|have to|has to|need to|needs to|required to|obliged to|muss|müssen)\b", text):
        return "must"
    return "may" if re.search(r"\b(?:can|may|could|allowed|permitted|kann|darf|dürfen|können)\b", text) else ""


def _owners(words: list[str]) -> frozenset[str]:
    subjects = {_SUBJECTS[word] for word in words if word in _SUBJECTS}
    return frozenset("own" if _OWNED[word] in subjects else _OWNED[word] for word in words if word in _OWNED)


def _tense(words: list[str], is_german: bool) -> str:
    tenses = _GERMAN_TENSES if is_german else _TENSES
    found = [tense for tense, forms in tenses.items() if forms & set(words)]
    return found[0] if len(found) == 1 else ""
