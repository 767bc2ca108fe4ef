"""The word lists: what they join must be joinable."""

import re

import pytest

from headrace.policies.reuse import english, german
from headrace.policies.reuse.grammar import grammar_of
from headrace.policies.reuse.guard import compare

LANGUAGES = pytest.mark.parametrize("is_german", [False, True], ids=["English", "German"])


def classes(is_german: bool) -> list[list[str]]:
    words = german if is_german else english
    lines = re.sub(r"(?<![,=])\n", ";", words.ACTIONS + words.CLASSES).replace("\n", " ").split(";")
    return [re.split(r"\s*[=,]\s*", line.strip()) for line in lines if line.strip()]


@LANGUAGES
def test_a_word_is_in_one_class(is_german: bool) -> None:
    words = [word for members in classes(is_german) for word in set(members)]

    assert sorted(word for word in set(words) if words.count(word) > 1) == []


@LANGUAGES
def test_no_form_of_a_word_leads_to_another_class(is_german: bool) -> None:
    grammar = grammar_of(is_german)
    lost = [
        (members[0], word)
        for members in classes(is_german)
        for word in members
        if " " not in word and "-" not in word and grammar.concepts[(grammar.base(word),)] != members[0]
    ]

    assert lost == []


@LANGUAGES
def test_opposites_are_in_two_classes(is_german: bool) -> None:
    assert [pair for pair in grammar_of(is_german).opposites if len(pair) != 2] == []


@LANGUAGES
def test_opposites_refuse(is_german: bool) -> None:
    way = "Wie ist das mit {} im Haus?" if is_german else "What is it about {} in the house?"
    pairs = (sorted(pair) for pair in grammar_of(is_german).opposites)

    assert [pair for pair in pairs if compare(way.format(pair[0]), way.format(pair[1])).may_serve] == []


@LANGUAGES
def test_what_is_passed_over_is_in_no_class(is_german: bool) -> None:
    members = {word for words in classes(is_german) for word in words}

    assert grammar_of(is_german).stop_words & members == set()


@pytest.mark.parametrize(
    ("form", "base"),
    [
        ("installing", "install"), ("stopped", "stop"), ("cities", "city"), ("making", "create"), ("wrote", "write"),
        ("planning", "plan"), ("plane", "plane"), ("care", "care"), ("cars", "car"), ("managing", "manag"),
        ("manages", "manag"), ("quickly", "quick"), ("hardly", "hardly"), ("news", "news"), ("children", "child"),
    ],
)  # fmt: skip
def test_inflection_is_undone_and_nothing_else(form: str, base: str) -> None:
    grammar = grammar_of(False)

    assert grammar.concepts.get((grammar.base(form),), grammar.base(form)) == base
