"""What a sentence is about: its concepts in order, each under the preposition that it follows. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from headrace.policies.reuse.grammar import MAX_PHRASE_WORDS, Grammar
from headrace.policies.reuse.items import WORDS, Item, Kind, with_numerals
from headrace.policies.reuse.lexicon import words_of

#: How far the particle of a separable verb may be from it, in items.
_PARTICLE_REACH = 6


@dataclass(frozen=True, slots=True)
class Term:
    """One concept of a text.

    Attributes:
        key: the concept, or what stands there to the letter.
        kind: `number`, `unit`, `verbatim` or `word`.
        negation: the word that negates it, in one form; empty if none does.
        is_name: its capital says that it is a name; in German, a noun.
        case: German: its article, where that says who does what to whom.
    """

    key: str
    kind: str = "word"
    negation: str = ""
    is_name: bool = False
    case: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Terms that follow one preposition, or none.

    Attributes:
        label: the preposition; empty before the first.
        joints: the positions in `terms` before which "and" or "or" stands.
    """

    label: str
    terms: tuple[Term, ...]
    joints: frozenset[int] = frozenset()


#: At the end of a clause this says nothing by itself: "which zone is it in".
_WEAK_AT_END = "in"


@dataclass(slots=True)
class _Builder:
    """Collects the chunks of one sentence."""

    chunks: list[Chunk] = field(default_factory=list)
    label: str = ""
    terms: list[Term] = field(default_factory=list)
    joints: set[int] = field(default_factory=set)
    clause_began: int = 0
    negation: str = ""
    late_negations: int = 0

    def add(self, term: Term) -> None:
        if self.negation:
            term, self.negation = replace(term, negation=self.negation), ""
        self.terms.append(term)

    def negate(self, word: str, is_inverted: bool) -> None:
        """Negate the next term; after an auxiliary at the beginning ("isn't it charging"), the clause's last one."""
        if is_inverted and word == "not" and len(self.chunks) == self.clause_began and not self.terms:
            self.late_negations += 1
        else:
            self.negation = f"{self.negation} {word}".strip()

    def cut(self, label: str) -> None:
        """Begin a chunk under this label."""
        if self.terms:
            self.chunks.append(Chunk(self.label, tuple(self.terms), frozenset(self.joints)))
            self.terms, self.joints, self.label = [], set(), label
        else:
            self.label = f"{self.label} {label}".strip() if label else ""

    def _keep_last_preposition(self) -> None:
        """A preposition that ends a clause is a part of its verb: "zoom in" is no "zoom out"."""
        if self.label and not self.terms and self.label != _WEAK_AT_END:
            self.add(Term(f"{self.label} …"))

    def end_clause(self, label: str = "") -> None:
        """Begin a clause."""
        self._keep_last_preposition()
        self.cut("")
        pending = "not " * self.late_negations + self.negation
        if pending.strip():
            self._negate_last(pending.strip())
        self.late_negations, self.negation, self.label = 0, "", label
        self.clause_began = len(self.chunks)

    def _negate_last(self, negation: str) -> None:
        if len(self.chunks) == self.clause_began:
            self.chunks.append(Chunk("", (Term(f"… {negation}", negation=negation),)))
            return
        last = self.chunks[-1]
        negated = replace(last.terms[-1], negation=f"{negation} {last.terms[-1].negation}".strip())
        self.chunks[-1] = replace(last, terms=(*last.terms[:-1], negated))


def chunks_of(items: Sequence[Item], grammar: Grammar) -> list[Chunk]:
    """Read the items of one sentence."""
    items = with_numerals(items)
    if grammar.is_german:
        items = _with_prefixes(items, grammar)
    builder, done = _Builder(), set[int]()
    at = 0
    while at < len(items):
        if at in done:
            at += 1
            continue
        item = items[at]
        if item.kind is Kind.WORD:
            at += _read_word(items, at, grammar, builder, done)
            continue
        if item.kind is Kind.END:
            builder.end_clause()
        elif item.kind is not Kind.OWNER and (found := _phrase(items, at, grammar)):
            builder.add(Term(found[0]))
            at += found[1] - 1
        elif item.kind is not Kind.OWNER:
            kind = "unit" if item.text.startswith("unit:") else item.kind.value
            builder.add(Term(item.text, kind))
        at += 1
    builder.end_clause()
    return builder.chunks


def _read_word(items: Sequence[Item], at: int, grammar: Grammar, builder: _Builder, done: set[int]) -> int:
    """Read the word or phrase at a place. Returns how many items that takes."""
    if found := _phrase(items, at, grammar):
        concept, length = found
        builder.add(Term(concept))
        return length
    if found_apart := _phrase_apart(items, at, grammar):
        concept, particle_at = found_apart
        done.add(particle_at)
        builder.add(Term(concept))
        return 1
    text = items[at].text
    word = text.lower().rstrip(".")
    if _is_written_large(text):
        builder.add(Term(grammar.concepts.get((word,), "usa" if text == "US" else text), is_name=True))
    elif text == "A" and not items[at].is_first:
        builder.add(Term(text, is_name=True))
    elif word in grammar.negations:
        is_inverted = at > 0 and items[at - 1].text.lower() in grammar.stop_words
        builder.negate("not" if word in ("not", "nicht") else "no" if word in _NO else word, is_inverted)
    elif word in grammar.joiners:
        builder.joints.add(len(builder.terms))
        if word in ("or", "oder"):
            builder.add(Term("or"))
    elif word in grammar.clause_words and at:
        builder.end_clause(word)
    elif word in grammar.prepositions:
        if _is_direction(items, at, word, grammar):
            builder.cut(grammar.prepositions[word])
    elif word not in grammar.stop_words and not _is_auxiliary(items, at, word):
        builder.add(_term(items, at, word, grammar))
    return 1


_NO = words_of("no none kein keine keinen keinem keiner keines")
_CASES = words_of("der den dem")


def _term(items: Sequence[Item], at: int, word: str, grammar: Grammar) -> Term:
    item = items[at]
    if unit := WORDS.get(word):
        return Term(f"unit:{unit}", "unit")
    is_name = item.text[0].isupper() and (grammar.is_german or not item.is_first)
    base = grammar.base(word)
    before = items[at - 1].text.lower() if at else ""
    return Term(
        grammar.concepts.get((base,), base),
        is_name=is_name,
        case=before if grammar.is_german and before in _CASES else "",
    )


def _is_written_large(text: str) -> bool:
    """Whether a word is written in capitals, as abbreviations are."""
    return len(text) > 1 and text.isupper() and text.isalpha()


def _is_auxiliary(items: Sequence[Item], at: int, word: str) -> bool:
    """Whether "need" or "have" only says that something must be done."""
    return word in ("need", "needs") and at + 1 < len(items) and items[at + 1].text == "to"


def _is_direction(items: Sequence[Item], at: int, word: str, grammar: Grammar) -> bool:
    """Whether a preposition is one, and not the mark of an infinitive."""
    following = items[at + 1] if at + 1 < len(items) else None
    if grammar.is_german:
        is_verb = following is not None and following.text.islower() and following.text.endswith("n")
        return not (word == "zu" and is_verb) and not (
            word == "um" and (following is None or following.kind is not Kind.NUMBER)
        )
    if word != "to":
        return True
    before = items[at - 1].text.lower() if at else ""
    is_infinitive = following is not None and following.text.lower() in grammar.verbs
    return bool(before) and before not in grammar.before_infinitive and not is_infinitive


def _phrase(items: Sequence[Item], at: int, grammar: Grammar) -> tuple[str, int] | None:
    """The longest phrase of the word lists that begins here, of two words or more."""
    words: list[str] = []
    for item in items[at : at + MAX_PHRASE_WORDS]:
        if item.kind not in (Kind.WORD, Kind.NUMBER):
            break
        words.append(item.text.lower().rstrip("."))
    rest = tuple(grammar.base(word) for word in words[1:])
    for length in range(len(words), 1, -1):
        for first in grammar.bases(words[0]):
            if concept := grammar.concepts.get((first, *rest[: length - 1])):
                return concept, length
    return None


def _phrase_apart(items: Sequence[Item], at: int, grammar: Grammar) -> tuple[str, int] | None:
    """A verb of two parts whose second ends the clause, or stands before a preposition: "turn the light off"."""
    bases = grammar.bases(items[at].text.lower())
    for there in range(at + 2, min(at + _PARTICLE_REACH, len(items))):
        if items[there].kind is Kind.END:
            return None
        word = items[there].text.lower()
        concepts = [concept for base in bases if (concept := grammar.concepts.get((base, word)))]
        if word in grammar.particles and concepts:
            following = items[there + 1] if there + 1 < len(items) else None
            if following is None or following.kind is Kind.END or following.text.lower() in grammar.prepositions:
                return concepts[0], there
    return None


def _with_prefixes(items: list[Item], grammar: Grammar) -> list[Item]:
    """German: a separable prefix at a clause's end goes back before its verb, the clause's first word in lower case."""
    began = 0
    for end in range(len(items) + 1):
        if end < len(items) and items[end].kind is not Kind.END:
            continue
        clause = range(began, end)
        began = end + 1
        if len(clause) < 2 or items[clause[-1]].text.lower() not in grammar.particles:
            continue
        verb = next((at for at in clause[:-1] if _is_verb(items[at], grammar)), None)
        if verb is not None:
            joined = items[clause[-1]].text.lower() + items[verb].text.lower()
            items[verb] = replace(items[verb], text=joined)
            items[clause[-1]] = replace(items[clause[-1]], kind=Kind.OWNER)
    return items


def _is_verb(item: Item, grammar: Grammar) -> bool:
    word = item.text.lower()
    return item.kind is Kind.WORD and (item.text.islower() or item.is_first) and word not in grammar.stop_words
