"""One language, as the guard reads it: base forms, concepts, and the words that only hold a sentence together. Pure."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from types import ModuleType

from headrace.policies.reuse import english, german
from headrace.policies.reuse.items import ordinal, spelled
from headrace.policies.reuse.lexicon import normal_form

_VOWEL = re.compile(r"[aeiouy]")
#: The longest phrase of the word lists, in words.
MAX_PHRASE_WORDS = 5
#: Words of one language whose base forms are kept. Callers choose the words, so their number has no bound.
KEPT_WORDS = 50_000


@dataclass(frozen=True, slots=True)
class Grammar:
    """The words of one language.

    Attributes:
        base: gives a word's base form, the same for all forms of a word.
        concepts: a phrase's or word's base forms, and the concept's name.
        actions: the concepts whose doer is always the caller or the system.
        opposites: pairs of concepts.
        optional: concepts that one text alone may have, by the kind of the request, and under `""` for each.
        judgements: concepts such as `safe`.
        verbs: what follows "to" as an infinitive.
        bases: all base forms that a word may have; its first is `base`.
    """

    is_german: bool
    base: Callable[[str], str]
    bases: Callable[[str], Sequence[str]]
    concepts: Mapping[tuple[str, ...], str]
    actions: frozenset[str]
    opposites: frozenset[frozenset[str]]
    stop_words: frozenset[str]
    optional: Mapping[str, frozenset[str]]
    judgements: frozenset[str]
    verbs: frozenset[str]
    joiners: frozenset[str]
    clause_words: frozenset[str]
    negations: frozenset[str]
    prepositions: Mapping[str, str]
    before_infinitive: frozenset[str]
    particles: frozenset[str]


@cache
def grammar_of(is_german: bool) -> Grammar:
    """German or English."""
    language = german if is_german else english
    classes = [*_classes(language.ACTIONS), *_classes(language.CLASSES)]
    vocabulary = frozenset(phrase for members in classes for phrase in members if len(_words(phrase)) == 1)
    base = _german_base(language.IRREGULAR) if is_german else _english_base(language.IRREGULAR, vocabulary)
    concepts: dict[tuple[str, ...], str] = {}
    for members in classes:
        for phrase in members:
            concepts.setdefault(tuple(base(word) for word in _words(phrase)), members[0])
    return _grammar(language, base, concepts, frozenset(members[0] for members in _classes(language.ACTIONS)))


def _grammar(
    language: ModuleType, base: Callable[[str], str], concepts: Mapping[tuple[str, ...], str], actions: frozenset[str]
) -> Grammar:
    def named(words: Iterable[str]) -> frozenset[str]:
        return frozenset(concepts.get((base(word),), base(word)) for word in words)

    pairs = [pair.split() for pair in re.split(r",\s*", language.OPPOSITES.replace("\n", " ").strip())]
    return Grammar(
        is_german=language is german,
        base=base,
        bases=(lambda word: (base(word),))
        if language is german
        else (lambda word: (base(word), *_english_forms(word))),
        concepts=concepts,
        actions=actions,
        opposites=frozenset(named(pair) for pair in pairs),
        stop_words=language.STOP_WORDS,
        optional={kind: named(words) for kind, words in language.OPTIONAL_WORDS.items()},
        judgements=named(language.JUDGEMENTS),
        verbs=language.VERBS,
        joiners=language.JOINERS,
        clause_words=language.CLAUSE_WORDS,
        negations=language.NEGATIONS,
        prepositions=language.PREPOSITIONS,
        before_infinitive=language.BEFORE_INFINITIVE,
        particles=language.PARTICLES,
    )


def _words(phrase: str) -> list[str]:
    """The parts of a phrase, numbers as their keys."""
    parts = phrase.replace("-", " ").split()
    if len(parts) == 1:
        return parts
    return [ordinal(part) or (f"#{part}" if part.isdigit() else None) or _spelled(part) for part in parts]


def _spelled(part: str) -> str:
    number = spelled([part])
    return number[0] if number else part


def _classes(source: str) -> list[Sequence[str]]:
    """The classes of a word list: each with its name first."""
    lines = re.sub(r"(?<![,=])\n", ";", source).replace("\n", " ").split(";")
    parts = [re.split(r"\s*[=,]\s*", line.strip()) for line in lines]
    return [[word for word in members if word] for members in parts if any(members)]


def _english_base(irregular: Mapping[str, str], vocabulary: frozenset[str]) -> Callable[[str], str]:
    @lru_cache(KEPT_WORDS)
    def base(word: str) -> str:
        """Inflection alone is undone: `installation` stays, and its class joins it to `install`."""
        if word in irregular:
            return irregular[word]
        if word in vocabulary:
            return word
        found = next((form for form in _english_forms(word) if form in vocabulary), None)
        return found or _english_guess(word)

    return base


def _english_forms(word: str) -> Iterator[str]:
    """The words of which this may be a form."""
    if word.endswith("ies"):
        yield word[:-3] + "y"
    if word.endswith("es"):
        yield word[:-2]
    if word.endswith("s") and not word.endswith("ss"):
        yield word[:-1]
    for ending in ("ing", "ed"):
        if word.endswith(ending) and _VOWEL.search(word[: -len(ending)]):
            stem = word[: -len(ending)]
            yield from (stem, stem + "e")
            if len(stem) > 2 and stem[-1] == stem[-2]:
                yield stem[:-1]
    if word.endswith("ied"):
        yield word[:-3] + "y"
    if word.endswith("ly"):
        yield word[:-2]


def _english_guess(word: str) -> str:
    """The base form of a word that no list has; forms of one word give one result, which need not be a word."""
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif re.search(r"(?:s|x|z|ch|sh)es$", word):
        word = word[:-2]
    elif len(word) > 3 and word.endswith("s") and not re.search(r"(?:ss|us|is)$", word):
        word = word[:-1]
    elif len(word) > 5 and word.endswith("ing"):
        word = _english_stem(word, word[:-3])
    elif len(word) > 4 and word.endswith("ied"):
        word = word[:-3] + "y"
    elif len(word) > 4 and word.endswith("ed"):
        word = _english_stem(word, word[:-2])
    elif len(word) > 5 and word.endswith("ly"):
        word = word[:-2]
    return word[:-1] if len(word) > 5 and word.endswith("e") else word


def _english_stem(word: str, stem: str) -> str:
    """A verb without its ending: an `e` that the ending swallowed is back, a doubled consonant is single."""
    if not _VOWEL.search(stem):
        return word
    if len(stem) > 2 and stem[-1] == stem[-2] and stem[-1] not in "lszf":
        return stem[:-1]
    if re.fullmatch(r"[^aeiouy]*[aeiouy][^aeiouywx]", stem):
        return stem + "e"
    return stem


_GERMAN_PARTICIPLE = re.compile(
    r"(ein|aus|an|ab|auf|um|zu|her|hin|vor|nach|mit|weg|los|zuruck|hoch|runter|herunter|zusammen)?(?:ge|zu)(\w{3,})"
)
#: After how many letters each ending may be cut, again and again until none is left.
_GERMAN_ENDINGS = [
    re.compile(pattern)
    for pattern in (r"(?<=\w{3}[a-hj-rtvwxyz])s$", r"(?<=\w{4})(?:est|st|et|t)$", r"(?<=\w{3})(?:ern|em|en|er|es|e|n)$")
]
_FOLDED = str.maketrans({"ä": "a", "ö": "o", "ü": "u", "ß": "ss"})


def _german_base(irregular: Mapping[str, str]) -> Callable[[str], str]:
    @lru_cache(KEPT_WORDS)
    def base(word: str) -> str:
        """A stem as Snowball's for German makes it, shorter by the endings of verbs."""
        word = irregular.get(word, word)
        folded = normal_form("NFC", word).translate(_FOLDED)
        parts = _GERMAN_PARTICIPLE.fullmatch(folded)
        if parts and (re.search(r"(?:t|en)$", folded) if parts[1] else re.fullmatch(r"ge\w{3,}t", folded)):
            folded = (parts[1] or "") + parts[2]
        return _german_stem(folded)

    return base


_GERMAN_SUPERLATIVE = re.compile(r"(\w{3,}st)(?:e|en|er|es|em)")


def _german_stem(folded: str) -> str:
    if superlative := _GERMAN_SUPERLATIVE.fullmatch(folded):
        return superlative[1]
    stem, longer = folded, ""
    while stem != longer:
        longer = stem
        for ending in _GERMAN_ENDINGS:
            stem = ending.sub("", stem)
    return stem
