"""How an entry earns trust by tries."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.policies.reuse.bound import (
    MIN_TRIES,
    RECHECK_SHARE,
    Try,
    threshold,
    trust,
    wrong_probability,
)

RIGHT = [Try(0.9, True)] * 40
TRIES = st.lists(st.builds(Try, st.floats(0, 1), st.booleans()), max_size=40)
SIMILARITIES = st.floats(0, 1)


def test_an_entry_without_tries_serves_nothing() -> None:
    found = trust([], 1.0)

    assert (found.may_serve, found.run_share) == (False, 1.0)


def test_an_entry_whose_tries_were_right_serves_what_is_as_alike() -> None:
    found = trust(RIGHT, 0.9)

    assert (found.may_serve, found.run_share) == (True, RECHECK_SHARE)
    assert not trust(RIGHT, 0.5).may_serve


def test_few_tries_serve_nothing_however_large_the_error_that_is_allowed() -> None:
    assert not trust(RIGHT[: MIN_TRIES - 1], 1.0, 0.9).may_serve
    assert trust(RIGHT[:MIN_TRIES], 1.0, 0.9).may_serve


def test_a_wrong_try_takes_trust_away_and_right_ones_give_it_back() -> None:
    assert not trust([*RIGHT, Try(0.92, False)], 0.9).may_serve
    assert trust([*RIGHT, Try(0.6, False)], 0.95).may_serve


def test_a_smaller_error_takes_more_tries() -> None:
    needed = [
        next(count for count in range(100) if trust([Try(0.95, True)] * count, 0.95, bound).may_serve)
        for bound in (0.05, 0.01, 0.005)
    ]

    assert needed == sorted(set(needed))


def test_the_threshold_lies_between_wrong_and_right_tries() -> None:
    tries = [Try(0.7, False)] * 10 + [Try(0.9, True)] * 40

    found = threshold(tries)

    assert found is not None
    assert 0.7 < found <= 0.9
    assert threshold([]) is None


@pytest.mark.parametrize("max_error", [0, 1, -0.5])
def test_an_error_that_is_no_share_is_refused(max_error: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        trust(RIGHT, 0.9, max_error)


@given(TRIES, SIMILARITIES, SIMILARITIES)
@settings(deadline=None)
def test_more_alike_is_never_less_sure(tries: list[Try], one: float, other: float) -> None:
    low, high = sorted((one, other))

    assert 0 <= wrong_probability(tries, high) <= wrong_probability(tries, low) + 1e-9 <= 1 + 2e-9


@given(TRIES, SIMILARITIES, st.randoms())
@settings(deadline=None)
def test_the_order_of_tries_says_nothing(tries: list[Try], similarity: float, dice: random.Random) -> None:
    mixed = dice.sample(tries, len(tries))

    assert wrong_probability(mixed, similarity) == pytest.approx(wrong_probability(tries, similarity))


def test_the_old_tries_are_forgotten() -> None:
    assert trust([Try(0.9, False)] * 500 + [Try(0.9, True)] * 200, 0.9).may_serve


@pytest.mark.parametrize("max_error", [0.05, 0.02])
def test_the_share_of_wrong_answers_stays_under_the_bound(max_error: float) -> None:
    """Entries as the policy does not model them: half never serve rightly below an own boundary, some lapse."""
    dice = random.Random(7)
    served = wrong = 0
    for number in range(60):
        boundary, lapse = dice.uniform(0.5, 1.0), 0.3 if number % 10 == 0 else 0.0
        tries: list[Try] = []
        for _ in range(80):
            similarity = dice.uniform(0.5, 1.0)
            is_right = similarity > boundary and dice.random() >= lapse
            if trust(tries, similarity, max_error).may_serve:
                served, wrong = served + 1, wrong + (not is_right)
            else:
                tries.append(Try(similarity, is_right))

    assert served > 1000
    assert wrong / served <= max_error
