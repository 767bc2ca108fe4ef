"""When two answers say the same."""

import time
from typing import Any

import pytest

from headrace.policies.routing.agreement import agree, read_alike, same_json, same_text


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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris", "Paris"),
        ("Paris", " Paris \n"),
        ("Paris.", "Paris"),
        ('{"label": "spam", "score": 1}', '{"score": 1,"label": "spam"}'),
        ("[1, 2]", "[1,2]"),
        ("The capital of France is Paris.", "Paris is the capital of France."),
        ("def f():\n    return 1", "def f():\n    return 1\n"),
    ],
)
def test_answers_that_say_the_same(one: str, other: str) -> None:
    assert read_alike(one, other)
    assert read_alike(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris", "Lyon"),
        ("Yes", "No"),
        ("42", "43"),
        ("", "Paris"),
        ('{"label": "spam"}', '{"label": "ham"}'),
        ('{"on": true}', '{"on": 1}'),
        ('{"label": "spam"}', "spam"),
        ("[1, 2]", "[2, 1]"),
        ("Take 5 mg a day.", "Take 5 g a day."),
        ("You can turn it on in the settings.", "You can turn it off in the settings."),
        ("The answer is not known.", "The answer is known."),
        ("if a:\n    b()\nc()", "if a:\n    b()\n    c()"),
        ("| a | b |", "| b | a |"),
        ("{broken", "{broken too"),
    ],
)
def test_answers_that_differ_or_may(one: str, other: str) -> None:
    assert not read_alike(one, other)
    assert not read_alike(other, one)
