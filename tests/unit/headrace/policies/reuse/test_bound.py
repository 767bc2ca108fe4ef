"""How an entry earns trust by tries."""

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.policies.reuse.bound import (
    ASSUMED,
    ASSUMED_ENTRIES,
    EARLY_RECHECKS,
    LEAST_TRIES,
    MIN_TRIES,
    MOST_ENTRIES,
    RECHECK_SHARE,
    Prior,
    Record,
    Try,
    learned,
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


# What the record of an app says of an entry with few tries, and that the bound holds with it.

SIMILARITY = 0.85
RIGHT_TRY, WRONG_TRY = Try(SIMILARITY, True), Try(SIMILARITY, False)
GOOD = [(RIGHT_TRY,) * 8] * MOST_ENTRIES
FEW_TRIES = st.lists(st.builds(Try, st.floats(0, 1), st.booleans()), max_size=8)


def needed(prior: Prior) -> int:
    """Right tries until an entry serves."""
    return next(count for count in range(60) if trust((RIGHT_TRY,) * count, SIMILARITY, 0.01, prior).may_serve)


def test_few_entries_make_no_record() -> None:
    assert learned([]) is ASSUMED
    assert learned(GOOD[: ASSUMED_ENTRIES - 1]) is ASSUMED
    assert learned(GOOD[:ASSUMED_ENTRIES]) is not ASSUMED


def test_an_entry_of_an_app_that_was_always_right_needs_few_tries() -> None:
    assert LEAST_TRIES <= needed(learned(GOOD)) <= 4
    assert needed(learned(GOOD)) < needed(learned(GOOD[:30])) < needed(ASSUMED)


def test_however_good_the_record_an_entry_needs_tries_of_its_own() -> None:
    sure = learned([(RIGHT_TRY,) * 100] * MOST_ENTRIES)

    assert not trust((RIGHT_TRY,) * (LEAST_TRIES - 1), 1.0, 0.5, sure).may_serve
    assert not trust((RIGHT_TRY, RIGHT_TRY, WRONG_TRY), SIMILARITY, 0.01, sure).may_serve


def test_an_app_whose_entries_are_often_wrong_needs_more_tries_than_one_without_a_record() -> None:
    bad = (RIGHT_TRY, WRONG_TRY) * 4

    assert needed(learned([(RIGHT_TRY,) * 8, bad] * (MOST_ENTRIES // 2))) >= 3 * needed(learned(GOOD))
    assert needed(learned([bad] * MOST_ENTRIES)) > needed(ASSUMED)


def test_a_single_try_of_each_entry_says_little() -> None:
    assert needed(learned([(RIGHT_TRY,)] * MOST_ENTRIES)) >= needed(ASSUMED) // 3


def test_only_the_newest_entries_count() -> None:
    bad = [(RIGHT_TRY, WRONG_TRY) * 4] * MOST_ENTRIES

    assert learned([*GOOD, *bad]).weights == learned(bad).weights


def test_what_serves_early_is_rechecked_more_often() -> None:
    sure = learned(GOOD)
    early, later = (trust((RIGHT_TRY,) * count, SIMILARITY, 0.01, sure) for count in (needed(sure), 40))

    assert early.run_share == pytest.approx(EARLY_RECHECKS / needed(sure))
    assert early.run_share > later.run_share == RECHECK_SHARE


def test_an_app_whose_rechecks_were_wrong_is_held_to_a_smaller_bound() -> None:
    assert (
        Record().bound(0.01) == Record(rechecks=1000).bound(0.01) == Record(rechecks=1000, wrong=8).bound(0.01) == 0.01
    )
    assert Record(rechecks=1000, wrong=50).bound(0.01) == pytest.approx(0.01 / 4.8, rel=0.01)
    assert 0.002 < Record(rechecks=20, wrong=1).bound(0.01) < 0.01


@given(st.lists(FEW_TRIES, min_size=ASSUMED_ENTRIES, max_size=40))
@settings(deadline=None, max_examples=30)
def test_no_record_takes_the_assumption_away(entries: Sequence[Sequence[Try]]) -> None:
    found = learned(entries)
    least = ASSUMED_ENTRIES / (ASSUMED_ENTRIES + len(entries))

    assert sum(found.weights) == pytest.approx(1)
    assert all(
        weight >= least * assumed - 1e-12 for weight, assumed in zip(found.weights, ASSUMED.weights, strict=True)
    )


Entry = Callable[[float], float]
"""An entry: the probability of a right answer at a similarity."""


def right_with(probability: float) -> Entry:
    """The same at every similarity."""
    return lambda _: probability


def above(boundary: float) -> Entry:
    """From a boundary on."""
    return lambda similarity: float(similarity > boundary)


#: What the entries are like, by their number.
STREAMS: dict[str, Callable[[int, random.Random], Entry]] = {
    "all are right": lambda _, __: right_with(1),
    "one in twenty is always wrong": lambda number, _: right_with(number % 20 > 0),
    "one in twenty is wrong half of the time": lambda number, _: right_with(0.5 if number % 20 == 0 else 1),
    "half are always wrong": lambda number, _: right_with(number % 2),
    "half are wrong half of the time": lambda number, _: right_with(0.5 if number % 2 else 1),
    "each has a boundary": lambda _, dice: above(dice.uniform(0.5, 1.0)),
}
MAX_ERROR, REQUESTS, ENTRIES = 0.02, 2_500, 60


@pytest.mark.parametrize("name", STREAMS)
def test_the_bound_holds_over_what_an_app_is_served(name: str) -> None:
    """Entries come one after the other, and each request asks one of those that are there."""
    dice, entries, tries, known = random.Random(3), list[Entry](), list[list[Try]](), Record()
    last, rechecks = dict[int, int](), list[bool]()
    served = wrong = 0
    for number in range(REQUESTS):
        if len(entries) * REQUESTS <= number * ENTRIES:
            entries.append(STREAMS[name](len(entries), dice))
            tries.append([])
        if number % 250 == 0:
            prior = learned([tries[entry] for entry in sorted(last, key=last.__getitem__)])
            known = Record(prior, len(rechecks), rechecks.count(False))
        entry, similarity = int(len(entries) * dice.random() ** 2), dice.choice((0.65, 0.75, 0.85, 0.95))
        is_right = dice.random() < entries[entry](similarity)
        trusted = trust(tries[entry], similarity, known.bound(MAX_ERROR), known.prior)
        if dice.random() >= trusted.run_share:
            served, wrong = served + 1, wrong + (not is_right)
            continue
        tries[entry].append(Try(similarity, is_right))
        last[entry] = number
        if trusted.may_serve:
            rechecks.append(is_right)

    assert wrong <= MAX_ERROR * served
    assert served > REQUESTS / 2 or name not in list(STREAMS)[:2]
