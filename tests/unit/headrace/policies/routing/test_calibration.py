"""The upper bound of an error, and the cheapest rules within one."""

import random
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.policies.routing.calibration import (
    Part,
    Trial,
    agree,
    calibrate,
    contains,
    labels_needed,
    read_alike,
    risk_of_one,
    same_json,
    same_text,
    totals,
    upper_bound,
)

POOLS = ("fast", "chat")
USD = {"fast": Decimal("0.001"), "chat": Decimal("0.01")}
MANY = 200


def trials(task: str | None, lengths: Sequence[int], *, wrong_above: dict[str, int]) -> list[Trial]:
    """Each length on each pool, which is wrong on longer prompts than it says."""
    return [
        Trial(task, chars, pool, chars <= wrong_above.get(pool, 10**6), USD[pool])
        for chars in lengths
        for pool in POOLS
    ]


def rules(parts: Sequence[Part]) -> list[tuple[str | None, int | None, tuple[str, ...], bool]]:
    return [(part.best.task, part.best.upto, part.chosen, part.is_proven) for part in parts]


@pytest.mark.parametrize(
    ("wrong", "tried", "risk", "bound"),
    # Source: 1 - risk^(1/n) for none wrong; else the tables of Clopper and Pearson.
    [(0, 10, 0.05, 0.2589), (0, 100, 0.05, 0.0295), (1, 20, 0.05, 0.2161), (5, 50, 0.025, 0.2181), (20, 20, 0.05, 1.0)],
)
def test_the_bound_is_that_of_the_tables(wrong: int, tried: int, risk: float, bound: float) -> None:
    assert upper_bound(wrong, tried, risk) == pytest.approx(bound, abs=2e-4)


def test_nothing_is_known_without_labels() -> None:
    assert upper_bound(0, 0, 0.05) == 1.0


@given(st.integers(1, 300), st.data(), st.sampled_from([0.1, 0.05, 0.001]))
def test_the_bound_is_above_the_error_and_falls_with_the_risk(tried: int, data: st.DataObject, risk: float) -> None:
    wrong = data.draw(st.integers(0, tried))
    bound = upper_bound(wrong, tried, risk)
    assert wrong / tried <= bound <= 1.0
    assert bound <= upper_bound(wrong, tried, risk / 2)
    assert bound <= upper_bound(min(tried, wrong + 1), tried, risk)


def test_the_true_error_is_above_the_bound_as_seldom_as_the_risk_says() -> None:
    rng = random.Random(7)
    true, risk, tried = 0.1, 0.1, 60
    missed = sum(upper_bound(sum(rng.random() < true for _ in range(tried)), tried, risk) < true for _ in range(2000))
    assert missed / 2000 <= risk


def test_the_risk_is_shared_among_all_bounds_that_are_looked_at() -> None:
    # Of each task: all prompts, and two parts for each of three splits; of each part, every pool.
    assert risk_of_one(0.95, tasks=1, pools=1) == pytest.approx(0.05 / 7)
    assert risk_of_one(0.9, tasks=3, pools=2) == pytest.approx(0.1 / (7 * 3 * 2))


def test_so_many_right_answers_prove_an_error_and_one_less_does_not() -> None:
    risk = risk_of_one(0.95, tasks=2, pools=2)
    needed = labels_needed(0.05, risk)
    assert upper_bound(0, needed, risk) <= 0.05 < upper_bound(0, needed - 1, risk)


def test_the_cheap_pool_is_taken_where_it_is_always_right() -> None:
    parts = calibrate(trials("classify", range(1, MANY + 1), wrong_above={}), POOLS, 0.05, 0.95)
    assert rules(parts) == [("classify", None, ("fast", "chat"), True)]


def test_the_good_pool_is_taken_where_the_cheap_one_is_wrong() -> None:
    parts = calibrate(trials("extract", range(1, MANY + 1), wrong_above={"fast": 0}), POOLS, 0.05, 0.95)
    assert rules(parts) == [("extract", None, ("chat",), True)]


def test_long_prompts_are_split_off_where_the_cheap_pool_fails_on_them() -> None:
    lengths = range(1, 2 * MANY + 1)
    short, long = calibrate(trials("mail", lengths, wrong_above={"fast": MANY}), POOLS, 0.05, 0.95)

    assert rules([short, long]) == [("mail", MANY, ("fast", "chat"), True), ("mail", None, ("chat",), True)]
    assert (short.best.labels, short.best.wrong, long.best.labels) == (MANY, 0, MANY)
    cost = totals([short, long])
    assert cost == {
        "rules": MANY * (USD["fast"] + USD["chat"]),
        "fast": 2 * MANY * USD["fast"],
        "chat": 2 * MANY * USD["chat"],
    }


def test_few_labels_prove_nothing_and_the_best_pool_is_taken() -> None:
    lengths = range(1, 11)
    [part] = calibrate(trials("classify", lengths, wrong_above={}), POOLS, 0.05, 0.95)
    assert rules([part]) == [("classify", None, ("chat",), False)]
    assert part.best.error == 0 < 0.05 < part.best.most_error
    [part] = calibrate(trials("classify", lengths, wrong_above={"chat": 5}), POOLS, 0.05, 0.95)
    assert rules([part]) == [("classify", None, ("fast",), False)], "the one with fewer wrong answers"


def test_many_wrong_answers_are_not_sure_at_all() -> None:
    both = {"fast": 0, "chat": MANY}
    parts = calibrate(trials("hard", range(1, 2 * MANY + 1), wrong_above=both), POOLS, 0.05, 0.95)
    assert [part.is_proven for part in parts] == [True, False], "only the short ones"


def test_each_task_has_its_own_rules_and_jobs_without_one_come_last() -> None:
    lengths = range(1, 2 * MANY + 1)
    of = {"b": 10**6, None: 0, "a": 10**6}
    every = [each for task, fails in of.items() for each in trials(task, lengths, wrong_above={"fast": fails})]
    assert rules(calibrate(every, POOLS, 0.05, 0.95)) == [
        ("a", None, ("fast", "chat"), True),
        ("b", None, ("fast", "chat"), True),
        (None, None, ("chat",), True),
    ]


def test_prompts_of_one_length_are_not_split() -> None:
    parts = calibrate(trials("same", [40] * MANY, wrong_above={"fast": 0}), POOLS, 0.05, 0.95)
    assert rules(parts) == [("same", None, ("chat",), True)]
    [part] = calibrate(trials("empty", [0] * MANY, wrong_above={}), POOLS, 0.05, 0.95)
    assert part.best.labels == MANY


# When two answers say the same.


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
