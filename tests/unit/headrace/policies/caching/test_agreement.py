"""Which answers say the same. A doubt counts as a difference."""

import pytest

from headrace.policies.caching.agreement import agree


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
    assert agree(one, other)
    assert agree(other, one)


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
    assert not agree(one, other)
    assert not agree(other, one)
