"""What holds for the guard whatever the texts are."""

from random import Random

from hypothesis import assume, example, given
from hypothesis import strategies as st

from headrace.policies.reuse.guard import compare, fingerprints

WORDS = st.sampled_from(
    [
        "how",
        "do",
        "I",
        "what",
        "is",
        "the",
        "turn",
        "on",
        "off",
        "not",
        "my",
        "your",
        "of",
        "to",
        "from",
        "in",
        "and",
        "or",
        "Anna",
        "Bob",
        "password",
        "file",
        "5",
        "7",
        "km",
        "miles",
        "reset",
        "delete",
        "capital",
        "France",
        "`x`",
        "wie",
        "ich",
        "das",
        "nicht",
        "Hund?",
        "warum,",
        "please",
        "don't",
        "without",
        "before",
        "after",
        "is",
        "are",
        "was",
        "first",
        "second",
    ]
)
SENTENCES = st.lists(WORDS, min_size=1, max_size=12).map(" ".join)
TEXTS = SENTENCES | st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
#: Requests with a gap for a number.
GAPS = st.sampled_from(
    [
        "Give me {} ideas.",
        "What is {} percent of 80?",
        "Wake me in {} minutes.",
        "Nenne {} Städte.",
        "Solve x + {} = 20.",
    ]
)
ACTS = st.sampled_from(["turn {} the light", "turn the light {}", "switch {} the light in the hall"])
NAMES = st.sampled_from(["Anna", "Bob", "Carl", "Dora", "Paris", "Rome"])
RELATIONS = st.sampled_from(
    ["Does {} owe {} money?", "Is {} older than {}?", "Go from {} to {}.", "Why did {} call {}?", "Hat {} mehr als {}?"]
)


@given(TEXTS, TEXTS)
@example("!", "")
def test_the_verdict_is_symmetric(a: str, b: str) -> None:
    assert compare(a, b).may_serve == compare(b, a).may_serve


@given(st.lists(WORDS, min_size=1, max_size=6), st.randoms(use_true_random=False), st.lists(WORDS, max_size=2))
def test_texts_that_pass_share_a_fingerprint(words: list[str], chance: Random, more: list[str]) -> None:
    others = [*words, *more]
    chance.shuffle(others)
    a, b = " ".join(words), " ".join(others)

    assert set(fingerprints(a)) & set(fingerprints(b)) or not compare(a, b).may_serve


@given(SENTENCES, st.sampled_from(["  ", "\n"]), st.sampled_from(["", ".", "?", " !"]))
def test_spaces_and_the_end_leave_the_fingerprint(text: str, space: str, end: str) -> None:
    assume("`" not in text)

    assert set(fingerprints(text)) & set(fingerprints(text.replace(" ", space) + end))


@given(TEXTS)
def test_a_text_matches_itself_unless_it_says_nothing(text: str) -> None:
    assert compare(text, text).may_serve == bool(text.strip())


@given(SENTENCES, st.sampled_from(["  ", "\n", "\t "]))
def test_spaces_say_nothing(text: str, space: str) -> None:
    assume("`" not in text)

    assert compare(text, text.replace(" ", space)).may_serve


@given(GAPS, st.integers(-10_000, 10_000), st.integers(-10_000, 10_000))
def test_another_number_refuses(gap: str, one: int, other: int) -> None:
    assume(one != other)

    assert not compare(gap.format(one), gap.format(other)).may_serve


@given(GAPS, st.decimals(0, 100, places=3), st.decimals(0, 100, places=3))
def test_another_fraction_refuses(gap: str, one: object, other: object) -> None:
    assume(one != other)

    assert not compare(gap.format(one), gap.format(other)).may_serve


@given(SENTENCES, st.sampled_from(["not", "without", "never", "nicht", "ohne"]), st.integers(0, 12))
def test_one_more_negation_refuses(text: str, negation: str, place: int) -> None:
    words = text.split()
    assume("`x`" not in words)
    words.insert(place, negation)

    assert not compare(text, " ".join(words)).may_serve


@given(ACTS)
def test_on_is_not_off(act: str) -> None:
    for way in ("How do I {}?", "{}", "Please {}.", "What happens if I {}?"):
        assert not compare(way.format(act.format("on")), way.format(act.format("off"))).may_serve


@given(RELATIONS, NAMES, NAMES)
def test_reversed_roles_refuse(relation: str, one: str, other: str) -> None:
    assume(one != other)

    assert not compare(relation.format(one, other), relation.format(other, one)).may_serve


@given(st.text("abc=+-*/<> ().", min_size=1, max_size=12), st.text("abc=+-*/<> ().", min_size=1, max_size=12))
def test_other_code_refuses(one: str, other: str) -> None:
    assume(one.strip().rstrip(".,") != other.strip().rstrip(".,"))

    assert not compare(f"What does `{one}` do?", f"What does `{other}` do?").may_serve
