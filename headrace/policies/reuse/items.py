"""Cuts a text into items: words, numbers, verbatim spans and the ends of clauses. Pure.

Verbatim is what must agree to the letter: code, quoted text, names of files, addresses, signs such as `+`.
"""

import re
from dataclasses import dataclass
from enum import Enum

from headrace.policies.normal_form import normal_form
from headrace.policies.reuse.quantities import quantity

#: Quotation marks, apostrophes and dashes, each as ASCII has it.
_ASCII = str.maketrans(
    {
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2018\u2019\u201a\u2039\u203a\u00b4", "'"),
        **dict.fromkeys("\u2013\u2014\u2212", "-"),
    }
)
#: A placeholder of a verbatim span: characters of private use, which texts do not have.
_FIRST, _LAST = 0xE000, 0xF8FF
_SPAN = re.compile(r"```.*?```|~~~.*?~~~|`[^`\n]+`|\"[^\"\n]+\"|(?<!\w)'[^'\n]+'(?!\w)", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*\.?")
_OPEN, _CLOSE = "([{<\"'", ")]}>\"'"
#: Clause-ending signs; a hyphen between spaces is a dash.
_ENDS = ",;:.!?…-"
#: The same, apart from any word; a point by itself is a folder.
_LONE_ENDS = frozenset([",", ";", ":", "!", "?", "…", "...", "--"])
#: What is written short, or in several ways, and how it reads in full, in this order.
_IN_FULL = r"""
\bcan't\b|\bcannot\b|\bcant\b => can not
\bwon't\b|\bwont\b => will not
\bshan't\b => shall not
\b(do|does|did|is|are|was|were|has|have|had|would|should|could|must|need)n'?t\b => \1 not
\bain't\b => is not
\bI'm\b|\bim\b(?= ) => I am
(\w)'re\b => \1 are
(\w)'ve\b => \1 have
(\w)'ll\b => \1 will
(\w)'d\b => \1 would
\b(what|how|who|where|when|why|it|that|there|he|she)'s\b => \1 is
\b(what|how|who|where)s\b => \1 is
\blet's\b => let us
(?<=s)'(?=\s) =>  's
(\w)'s\b => \1 's
\b(?:am|is|are|was|were|be) (?:unable|not able) to\b => can not
\b(?:unable|not able) to\b => not
\b(fails?|failed|refuses?|refused) to\b => does not
\b(?:pls|plz)\b => please
\bhow do u\b => how do you
\b2fa\b => two-factor authentication
\bin order to\b => to
\bdo they\b => do people
\bturn (\S+|\S+ \S+|\S+ \S+ \S+) into\b => convert \1 to
\b(my|your|his|her|our|their) own\b => \1
\bthe (?:word|term|phrase|expression|abbreviation|acronym)(?= (?!of\b|for\b|in\b|that\b|to\b|is\b|count)\S) => the
\b(?:right now|at the moment|these days|at present|as of now)\b => currently
\bin (?:simple|plain|easy|layman's) (?:terms|words|language|english)\b => simply
\b(?:each|every|per)(?= (?:day|week|month|year|hour|minute|night|morning|person)\b) => a
\bdaily\b => a day
\bweekly\b => a week
\bmonthly\b => a month
\b(?:yearly|annually)\b => a year
\b(?:type|kind|sort)s? of\b => the
\b(?:wie geht's)\b => wie geht es
\bgibt's\b => gibt es
"""
_CONTRACTIONS = [
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, _, replacement in (line.partition(" => ") for line in _IN_FULL.strip().splitlines())
]


class Kind(Enum):
    """What an item is."""

    WORD = "word"
    NUMBER = "number"
    VERBATIM = "verbatim"
    OWNER = "owner"  # the 's of "France's capital"
    END = "end"


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of a text.

    Attributes:
        text: as it is written, or the key of a number.
        is_first: it begins a sentence, so that its capital says nothing.
    """

    kind: Kind
    text: str
    is_first: bool = False


@dataclass(frozen=True, slots=True)
class Masked:
    """A text whose verbatim spans are placeholders."""

    text: str
    spans: tuple[str, ...]


def mask(text: str) -> Masked:
    """Take the verbatim spans out of a text, and write out what is contracted in the rest."""
    text = normal_form("NFKC", text).translate(_ASCII)
    spans: list[str] = []

    def placeholder(found: re.Match[str]) -> str:
        if len(spans) > _LAST - _FIRST:
            return " "
        spans.append(_bare(found[0]))
        return f" {chr(_FIRST + len(spans) - 1)} "

    text = re.sub(rf"[{chr(_FIRST)}-{chr(_LAST)}]", " ", text)
    text = _SPAN.sub(placeholder, text)
    for pattern, replacement in _CONTRACTIONS:
        text = pattern.sub(replacement, text)
    return Masked(text.strip(), tuple(spans))


def _bare(span: str) -> str:
    """A span without its marks, so that one kind of quotes equals another. Code keeps its inner spaces."""
    for mark in ("```", "~~~", "`", '"', "'"):
        if span.startswith(mark):
            return span[len(mark) : -len(mark)].strip().rstrip(".,")
    return span


def sentences(text: str) -> list[str]:
    """The sentences of a masked text, with the signs at their ends. Points inside numbers and names do not end one."""
    return [
        part.strip() for part in re.split(r"(?<=[.!?])\s+(?=[^\W\d_a-zäöü]|[\ue000-\uf8ff])|\n+", text) if part.strip()
    ]


def items(sentence: str, spans: tuple[str, ...], is_german: bool) -> list[Item]:
    """Cut one sentence of a masked text into items."""
    cut: list[Item] = []
    is_first = True
    tokens = sentence.split()
    for at, token in enumerate(tokens):
        core, is_end = (token, False) if token == "'s" else _stripped(token)
        if not core:
            is_dash = token == "-" and at + 1 < len(tokens)
            cut.append(Item(Kind.END if is_dash or token in _LONE_ENDS else Kind.VERBATIM, token))
            continue
        cut += _of_token(core, spans, is_german, is_first)
        is_first = False
        if is_end:
            cut.append(Item(Kind.END, token[-1]))
    return cut


def _stripped(token: str) -> tuple[str, bool]:
    """A token without the punctuation around it, and whether that ends a clause."""
    start, end = 0, len(token)
    while start < end and token[start] in _OPEN and _closing(token[start]) not in token[start + 1 : end]:
        start += 1
    if end - start > 2 and token[start] == "(" and token[end - 1] in ").,;!?" and token.count("(") == 1:
        start, end = start + 1, token.rindex(")") if ")" in token else end
    while end > start and (token[end - 1] in ",;:!?…." or _is_stray(token[start:end])):
        end -= 1
    return token[start:end], bool(set(token[end:]) & set(_ENDS))


def _closing(sign: str) -> str:
    return _CLOSE[_OPEN.index(sign)]


def _is_stray(token: str) -> bool:
    """Whether a token ends with a bracket that it does not open."""
    return token[-1] in ")]}" and token.count(token[-1]) > token.count(_OPEN[_CLOSE.index(token[-1])])


def _of_token(core: str, spans: tuple[str, ...], is_german: bool, is_first: bool) -> list[Item]:
    if len(core) == 1 and _FIRST <= ord(core) <= _LAST:
        return [Item(Kind.VERBATIM, spans[ord(core) - _FIRST])]
    if core == "'s":
        return [Item(Kind.OWNER, core)]
    if core == "&":
        return [Item(Kind.WORD, "and")]
    if keys := quantity(core, is_german):
        return [Item(Kind.NUMBER, key) for key in keys]
    if counted := re.fullmatch(r"(\d+)-([a-zäöü]+)", core):
        return [Item(Kind.NUMBER, f"#{counted[1]}"), Item(Kind.WORD, counted[2])]
    if _is_name_in_letters(core):
        return [Item(Kind.WORD, core, is_first)]
    if _WORD.fullmatch(core) and not re.search(r"[a-zäöüß][A-ZÄÖÜ]", core):
        return [Item(Kind.WORD, core, is_first)]
    # Outside code a name such as Node.js or YouTube may be written in any case; what looks like code may not.
    is_name = re.fullmatch(r"[\w.+#'-]*", core) and not re.match(r"-|[a-z]+[A-Z]|.*_", core)
    return [Item(Kind.VERBATIM, core.casefold() if is_name else core)]


def _is_name_in_letters(core: str) -> bool:
    """Abbreviations with points: U.S., e.g., Ph.D."""
    return bool(re.fullmatch(r"(?:[^\W\d_]\.)+[^\W\d_]?\.?", core)) and len(core) > 2
