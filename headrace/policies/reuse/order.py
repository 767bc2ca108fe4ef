"""Whether two requests about the same concepts give them the same roles: "A owes B" is no "B owes A". Pure.

Both have the same terms; only their order and their prepositions may differ. Order carries roles, so that it may differ
only where grammar says that the roles stay: in a compound against its `of`, in a phrase at the beginning or the end, at
the verb of an action whose doer is the caller, around "and" and "or".
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from headrace.policies.reuse.lexicon import words_of
from headrace.policies.reuse.reading import Reading
from headrace.policies.reuse.terms import Chunk, Term

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


def _shown(terms: Iterable[Term], label: str) -> list[str]:
    keys = [f"{term.negation}!{term.key}" for term in terms]
    if label in _LOOSE:
        return keys
    # A preposition counts also where the term that it stands before does not.
    return [f"{label}:{keys[0]}", *keys[1:]] if keys else [f"{label}:"]


def _flat(chunks: Sequence[Chunk], mode: str) -> Keys:
    """All terms in one row. A loose phrase stays where it is, or stands as a compound has it.

    Args:
        mode: `after` the phrase that it follows; or before that phrase's `head`, its last word; or at its `front`.
    """
    phrase: list[str] = []
    after: list[str] = []
    is_loose = False
    for chunk in reversed(chunks):
        label = _label(chunk)
        keys = _shown(chunk.terms, label)
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
        keys = _shown(chunk.terms, "")
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
