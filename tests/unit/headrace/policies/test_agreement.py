"""When two answers say the same."""

import time
from typing import Any

import pytest

from headrace.policies.agreement import agree, contains, same_json, same_text


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Spam", "  spam.\n", True),
        ("New  York", "new york", True),
        ('"yes"', "Yes!", True),
        ("\ufb01ne", "fine", True),
        ("5", "-5", False),
        ("5", "5%", False),
        ("not spam", "spam", False),
        ("", "x", False),
    ],
)
def test_texts_agree_whatever_their_case_spaces_and_marks(one: str, other: str, same: bool) -> None:
    assert same_text(one, other) is same_text(other, one) is same


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('{"a": 1, "b": [1, 2]}', '{"b":[1,2],"a":1}', True),
        ("[1, 2]", "[2, 1]", False),
        ('{"a": true}', '{"a": 1}', False),
        ('{"a": "x"}', '{"a": "X"}', False),
        ("{", "{", False),
        ("[" * 100_000, "[" * 100_000, False),
    ],
)
def test_json_agrees_whatever_its_spaces_and_order_of_names(one: str, other: str, same: bool) -> None:
    assert same_json(one, other) is same


@pytest.mark.parametrize(
    ("text", "part", "found"),
    [
        ("The answer is: Paris.", "paris", True),
        ("Parisian", "Paris", False),
        ("It costs 15 EUR", "5 EUR", False),
        ("anything", " ", False),
    ],
)
def test_a_text_contains_whole_words(text: str, part: str, found: bool) -> None:
    assert contains(text, part) is found


@pytest.mark.parametrize(
    ("response_format", "agrees"), [(None, False), ({"type": "text"}, False), ({"type": "json_object"}, True)]
)
def test_answers_are_compared_as_json_if_the_request_asked_for_json(
    response_format: dict[str, Any] | None, agrees: bool
) -> None:
    assert agree('{"a": 1}', '{"a":1}', response_format) is agrees


def test_no_answer_takes_the_square_of_its_length() -> None:
    answer = "a" + "\u0301" * 20_000 + "\u0316" * 20_000
    began = time.thread_time()
    assert not agree(answer, answer + "b", None)
    assert time.thread_time() - began < 1


def test_letters_are_joined_with_their_marks_whatever_is_around_them() -> None:
    assert agree("日本 cafe\u0301", "日本 café", None)
