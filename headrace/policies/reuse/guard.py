"""Whether the answer to one request may serve another, by their texts alone. Pure.

Embeddings cannot decide this: MiniLM gives "turn on dark mode" and "turn off dark mode" a cosine of 0.93, and some
paraphrases 0.65. So the guard does not look for signs of a difference, a list of which is never complete. It refuses
unless it can read both texts as the same: the same kind of request about the same concepts in the same roles, with the
same numbers, units, dates, negations and verbatim spans. Words that it does not know are concepts by themselves, and
must be in both. The cost is hits: a paraphrase in words that no list joins is refused.

Sources: identical content words beside the cosine, ankit373/hydra #945; order carries roles, #1010; possessives carry
them too, #1035; reversed questions above every threshold, zilliztech/GPTCache #694; polarity,
vllm-project/semantic-router #2691.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from headrace.policies.reuse.lexicon import words_of
from headrace.policies.reuse.reading import Reading, is_alike, plain, read
from headrace.policies.reuse.terms import Chunk, Term

# Roles: whether two requests about the same concepts give them the same ones. "A owes B" is no "B owes A".
#
# Both have the same terms; only their order and their prepositions may differ. Order carries roles, so it may differ
# only where grammar says that the roles stay: in a compound against its `of`, in a phrase at the beginning or the end,
# at the verb of an action whose doer is the caller, around "and" and "or".

#: Prepositions that a compound can replace: "the password for the account" is "the account password".
_LOOSE = frozenset(["", "of", "for", "in"])
#: What the caller wants done, where the verb's place says nothing of roles.
_DONE_BY_CALLER = frozenset(["how-to", "do", "can-you"])
#: Asks for one of the two sides of an act.
_ASKS_FOR_A_ROLE = frozenset(["who", "what", "whether", "whom", "to-whom"])
_ADVERBS = words_of("today tomorrow yesterday now always often immediately morgen heute gestern jetzt immer")

#: German: words in lower case whose place decides to what they apply.
_FOCUS = words_of("nur sogar mehr wenig all alle erst schon noch selbst mind hochst oder")

_NO_SUPERLATIVES = words_of(
    "forest interest request contest protest harvest conquest invest digest suggest manifest honest modest august "
    "breakfast broadcast contrast podcast toast against almost artist scientist dentist tourist list specialist"
)

Keys = tuple[str, ...]


def same_roles(one: Reading, other: Reading, optional: frozenset[str]) -> bool:
    """Whether each term has the role in one text that it has in the other. Args: optional: terms that do not count."""
    if not _cases_agree(one, other):
        return False
    adverbs = optional | frozenset(term.key for term in one.terms() if term.key in _ADVERBS) | _only_year(one)
    choices = (adverbs | {key} for key in _free(one) & _free(other))
    return any(_is_ordered_alike(one.chunks, other.chunks, keys) for keys in (optional, adverbs, *choices))


def _is_ordered_alike(one: Sequence[Chunk], other: Sequence[Chunk], passed_over: frozenset[str]) -> bool:
    one, other = [_without(chunk, passed_over) for chunk in one], [_without(chunk, passed_over) for chunk in other]
    # Both in one mode: "the son of the king" in another than "the king of the son" would be the same row.
    return any(_flat(one, mode) == _flat(other, mode) for mode in ("after", "head", "front")) or (
        _can_move(one) and _can_move(other) and _movable(one) == _movable(other)
    )


def _without(chunk: Chunk, keys: frozenset[str]) -> Chunk:
    """A chunk in canonical form: neighbours of a joint sorted, and some terms left out."""
    terms = list(chunk.terms)
    for joint in sorted(chunk.joints):
        left, right = joint - 1, joint + (joint < len(terms) and terms[joint].key == "or")
        is_outermost = left == 0 or right == len(terms) - 1
        if left >= 0 and right < len(terms) and is_outermost and terms[right].key < terms[left].key:
            terms[left], terms[right] = terms[right], terms[left]
    return Chunk(chunk.label, tuple(term for term in terms if term.key not in keys))


def _label(chunk: Chunk) -> str:
    """A chunk's label; before a number, `in` and `for` are not loose: "in two days" is not "for two days"."""
    first = chunk.terms[0] if chunk.terms else None
    if chunk.label in ("in", "for") and first and first.kind == "number" and not _is_year(first.key):
        return f"{chunk.label} #"
    return chunk.label


def _only_year(reading: Reading) -> frozenset[str]:
    """The one number of a text, if it is a year: "the 2014 cup" is "the cup in 2014"."""
    numbers = [term.key for term in reading.terms() if term.kind == "number"]
    return frozenset(numbers) if len(numbers) == 1 and _is_year(numbers[0]) else frozenset()


def _is_year(key: str) -> bool:
    return len(key) == 5 and key[1:].isdigit()


def _labelled(terms: Iterable[Term], label: str) -> list[str]:
    keys = [f"{term.negation}!{term.key}" for term in terms]
    if label in _LOOSE:
        return keys
    # A preposition counts also where the term that it stands before does not.
    return [f"{label}:{keys[0]}", *keys[1:]] if keys else [f"{label}:"]


def _flat(chunks: Sequence[Chunk], mode: str) -> Keys:
    """All terms in one row. A loose phrase stays where it is, or stands as a compound has it.

    Args: mode: `after` the phrase that it follows; or before that phrase's `head`, its last word; or at its `front`.
    """
    phrase: list[str] = []
    after: list[str] = []
    is_loose = False
    for chunk in reversed(chunks):
        label = _label(chunk)
        keys = _labelled(chunk.terms, label)
        if is_loose and keys and mode != "after":
            phrase = [*keys[:-1], *phrase, keys[-1]] if mode == "head" else [*phrase, *keys]
        else:
            phrase, after = keys, phrase + after
        is_loose = bool(label) and label in _LOOSE
    return tuple(phrase + after)


def _can_move(chunks: Sequence[Chunk]) -> bool:
    """Whether the phrases of a text may change places: it has one clause, and no two phrases with one preposition."""
    labels = [chunk.label for chunk in chunks if chunk.terms and chunk.label != "of"]
    return max(Counter(labels).values(), default=0) == 1


def _movable(chunks: Sequence[Chunk]) -> Counter[Keys]:
    """The phrases of a text, each with what `of` joins to it."""
    phrases: list[list[str]] = []
    for chunk in chunks:
        keys = _labelled(chunk.terms, "")
        if chunk.label == "of" and phrases:
            phrases[-1][-1:] = [*keys, phrases[-1][-1]]
        elif keys or _label(chunk) not in _LOOSE:
            phrases.append([f"{_label(chunk)}:", *keys])
    return Counter(tuple(phrase) for phrase in phrases)


def _free(reading: Reading) -> frozenset[str]:
    """Terms of which one may stand anywhere, because its place says nothing.

    They are the one superlative of the first phrase, the one action of a request to do it, and in German the verb: it
    moves with the kind of the clause, and articles and the order of nouns tell who does what.
    """
    # A preposition must not go with the term that it stands before.
    terms = [
        term for chunk in reading.chunks for place, term in enumerate(chunk.terms) if place or chunk.label in _LOOSE
    ]
    verbs = _german_verbs(terms) if reading.grammar.is_german else _actions(reading, terms)
    superlatives = {term.key for chunk in reading.chunks[:1] for term in chunk.terms if _is_superlative(term)}
    judgements = {term.key for term in terms if term.key in reading.grammar.judgements}
    return frozenset(verbs.union(*(each for each in (superlatives, judgements) if len(each) == 1)))


def _german_verbs(terms: Sequence[Term]) -> set[str]:
    """What may be the verb: words in small letters at either end."""
    if not terms or not (any(term.is_name for term in terms) or len(terms) == 2):
        return set()
    return {
        term.key
        for term in (terms[0], terms[-1])
        if term.kind == "word" and not term.is_name and term.key not in _FOCUS
    }


def _actions(reading: Reading, terms: Sequence[Term]) -> set[str]:
    if not set(reading.kinds or ("do",)) <= _DONE_BY_CALLER:
        return set()
    actions = [term.key for term in reading.terms() if term.key in reading.grammar.actions]
    return set(actions) & {term.key for term in terms} if len(actions) == 1 else set()


def _is_superlative(term: Term) -> bool:
    if term.is_name or term.key in _NO_SUPERLATIVES:
        return False
    return term.key in ("best", "worst", "most", "least") or (term.key.endswith("st") and len(term.key) > 5)


def _cases_agree(one: Reading, other: Reading) -> bool:
    """German: whether each noun has the same article, where a question asks for one of two sides."""
    if not {*one.kinds, *other.kinds} & _ASKS_FOR_A_ROLE:
        return True
    cases = {term.key: term.case for term in one.terms() if term.case}
    return all(cases.get(term.key, term.case) == term.case for term in other.terms() if term.case)


# The verdict.

#: Longer texts, in characters, serve nothing but themselves: they are documents, of which every word may matter.
MAX_CHARACTERS = 2_000
#: Texts whose readings are kept, and their longest, in characters. A question is compared with many others, and to read
#: one takes ten times as long as to compare two readings.
_KEPT, _KEPT_CHARACTERS = 4096, 500
#: A text of this many words, all in capitals, may be names. In a longer one, capitals say nothing.
_MOST_CAPITALS = 3
#: Concepts of what users do on a page or in an app.
_ON_A_PAGE = words_of(
    "change delete download upload cancel reset view check turn-on turn-off log-in sign-up unsubscribe track export "
    "import submit rename subscribe contact"
)


@dataclass(frozen=True, slots=True)
class GuardVerdict:
    """Whether an answer may serve another request.

    Attributes:
        kind: what decides, in one word: `same`, or what differs.
        reason: the same in a sentence, without the texts where they are long.
    """

    may_serve: bool
    kind: str
    reason: str


def compare(asked: str, cached: str) -> GuardVerdict:
    """Whether the answer to `cached` may serve `asked`. Symmetric.

    Bound: time grows with the sum of the lengths, which `MAX_CHARACTERS` limits.
    """
    if _plain(asked) == _plain(cached) and asked.strip() and cached.strip() and _is_lossless(asked, cached):
        return GuardVerdict(True, "same", "the words are the same")
    if max(len(asked), len(cached)) > MAX_CHARACTERS:
        return _refuse("length", f"texts above {MAX_CHARACTERS} characters must be identical")
    languages = {_language_of(asked), _language_of(cached)} - {None}
    if len(languages) > 1:
        return _refuse("language", "the languages differ")
    if "other" in languages:
        return _refuse("language", "in this language the words must be identical")
    is_german = "de" in languages
    return _of_readings(_read(_spoken(asked), is_german), _read(_spoken(cached), is_german))


def fingerprints(text: str) -> tuple[str, ...]:
    """What an index can find a text by: `compare` lets two texts pass only if they have a fingerprint in common.

    The first is of the words as they stand, the others are of its reading. A text that is too short to show its
    language is read in both. Other word lists make other fingerprints.
    """
    language = _language_of(text)
    if language == "other" or len(text) > MAX_CHARACTERS:
        readings = []
    else:
        readings = [
            _read(_spoken(text), is_german) for is_german in ([language == "de"] if language else [False, True])
        ]
    return _digest(_plain(text)), *(_fingerprint(each) for each in readings if any(True for _ in each.terms()))


def _fingerprint(reading: Reading) -> str:
    """The digest of all terms that both texts must have, and of what negates them."""
    optional = frozenset().union(*reading.grammar.optional.values())
    terms = [(term.kind, term.key, term.negation) for term in reading.terms()]
    needed = sorted(each for each in terms if each[0] != "word" or each[2] or each[1] not in optional)
    return _digest((reading.grammar.is_german, needed))


def _digest(value: object) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()


_kept_read, _kept_plain = lru_cache(_KEPT)(read), lru_cache(_KEPT)(plain)


def _read(text: str, is_german: bool) -> Reading:
    return (_kept_read if len(text) <= _KEPT_CHARACTERS else read)(text, is_german)


def _plain(text: str) -> tuple[str, ...]:
    return (_kept_plain if len(text) <= _KEPT_CHARACTERS else plain)(text)


def _spoken(text: str) -> str:
    """A text that is all in capitals in small letters: there they say nothing."""
    return text.lower() if text.isupper() and len(text.split()) > _MOST_CAPITALS else text


def _refuse(kind: str, reason: str) -> GuardVerdict:
    return GuardVerdict(False, kind, reason)


def _is_lossless(asked: str, cached: str) -> bool:
    """Whether capitals say nothing: both texts have the same, that of the first word aside."""
    return _capitals(asked) == _capitals(cached)


def _capitals(text: str) -> list[str]:
    words = re.findall(r"\w+", text)
    return [word for place, word in enumerate(words) if not word.islower() and (place or not word.istitle())]


def _of_readings(one: Reading, other: Reading) -> GuardVerdict:
    for kind, noun in (("verbatim", "code or quoted text"), ("number", "numbers, dates or times"), ("unit", "units")):
        if difference := _difference(_keys(one, kind), _keys(other, kind)):
            return _refuse(kind, f"{noun} differ: {difference}")
    if not any(True for _ in one.terms()) or not any(True for _ in other.terms()):
        return _refuse("words", "a text has no words that say what it is about")
    mine, theirs = _keys(one, "word") - _keys(other, "word"), _keys(other, "word") - _keys(one, "word")
    optional = _optional(one, other)
    if (mine and theirs) or not frozenset(mine | theirs) <= optional:
        return _of_words(one, other)
    if _negated(one) != _negated(other):
        return _refuse("negation", "one text negates what the other does not")
    if not _kinds_agree(one, other):
        return _refuse("question", f"they ask differently: {_shown(one.kinds)}; {_shown(other.kinds)}")
    if one.tense and other.tense and one.tense != other.tense:
        return _refuse("tense", f"one speaks of the {one.tense}, the other of the {other.tense}")
    if not _owners_agree(one.owners, other.owners):
        return _refuse("owner", "they speak of different people's things")
    if one.voice != other.voice and not (one.has_any_doer or other.has_any_doer):
        return _refuse("roles", "one is done what the other does")
    if (one.speakers or other.speakers) and one.speakers != other.speakers:
        return _refuse("roles", "I and you change places")
    if {one.duty, other.duty} == {"must", "may"} and "how-to" not in one.kinds:
        return _refuse("question", "one asks for a duty, the other for a permission")
    if not same_roles(one, other, optional):
        return _refuse("roles", "the same words stand in other roles")
    return GuardVerdict(True, "same", "the same concepts in the same roles")


def _keys(reading: Reading, kind: str) -> Counter[str]:
    return Counter(term.key for term in reading.terms() if term.kind == kind)


def _optional(one: Reading, other: Reading) -> frozenset[str]:
    """What one of them alone may have."""
    return frozenset().union(*(one.grammar.optional.get(kind, ()) for kind in ("", *one.kinds, *other.kinds)))


def _negated(reading: Reading) -> Counter[tuple[str, str]]:
    return Counter((term.key, term.negation) for term in reading.terms() if term.negation)


def _of_words(one: Reading, other: Reading) -> GuardVerdict:
    """The reason where the words differ: opposites, names, or other words."""
    mine, theirs = _keys(one, "word") - _keys(other, "word"), _keys(other, "word") - _keys(one, "word")
    for left in mine:
        for right in theirs:
            if frozenset((left, right)) in one.grammar.opposites:
                return _refuse("opposite", f"opposites: {left}; {right}")
    difference = _difference(mine, theirs)
    if _names(one.terms(), mine) and _names(other.terms(), theirs):
        return _refuse("name", f"names differ: {difference}")
    return _refuse("words", f"words differ: {difference}")


def _names(terms: Iterable[Term], keys: Counter[str]) -> bool:
    return any(term.is_name and term.key in keys for term in terms)


def _difference(one: Counter[str], other: Counter[str]) -> str:
    """What one has and the other lacks; empty if nothing."""
    return "" if one == other else f"{_shown(one - other)}; {_shown(other - one)}"


def _shown(keys: Iterable[str]) -> str:
    return ", ".join(sorted(key[:40] for key in keys)[:5]) or "none"


def _kinds_agree(one: Reading, other: Reading) -> bool:
    mine, theirs = one.kinds or ("do",), other.kinds or ("do",)
    if {*mine, *theirs} == {"where-can", "how-to"}:
        # Where to do it and how are one question where the place is a page.
        return any(term.key in _ON_A_PAGE for term in one.terms())
    return len(mine) == len(theirs) and all(is_alike(left, right) for left, right in zip(mine, theirs, strict=True))


def _owners_agree(one: frozenset[str], other: frozenset[str]) -> bool:
    """`my` is `the`, and `your` may be: but `my` is not `your`."""
    mine, theirs = {"own", "1"}, {"2"}
    return not (
        (one & mine and other & theirs and not other & mine) or (other & mine and one & theirs and not one & mine)
    )


_ENGLISH = words_of(
    "the of to is are how what does do i my you can and for with it on from this that when where which why who should "
    "by about between tell me please at be your our an has have did not or if there would could was were"
)
_GERMAN = words_of(
    "der die das den dem ist sind wie ich mein meine meinen ein eine einen einem einer und für mit von zu zum zur im "
    "kann man nicht auf wann warum welche welcher welches mir bitte bei aus über wird haben hat gibt nach oder sie wer "
    "wo dürfen können darf soll sollte muss müssen sollten kein keine auch zwischen viele viel erkläre nenne wieso "
    "weshalb heißt kostet ohne"
)
_WORD = re.compile(r"[^\W\d_]+")
#: A text with at least this many words has small words of its language. One without them is in neither language.
_MIN_WORDS = 6


def _language_of(text: str) -> str | None:
    """`en` or `de`, as far as its small words show it; `other` for neither; None for a text that is too short."""
    words = [word.lower() for word in _WORD.findall(text)]
    english, german = sum(word in _ENGLISH for word in words), sum(word in _GERMAN for word in words)
    if german > english or (german == english and re.search("[äöüß]", text.lower())):
        return "de"
    if english > german:
        return "en"
    return "other" if len(words) >= _MIN_WORDS and not english else None
