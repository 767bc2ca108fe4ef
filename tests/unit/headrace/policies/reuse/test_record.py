"""What the record of an app says of an entry with few tries, and that the bound holds with it."""

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.policies.reuse.bound import ASSUMED, EARLY_RECHECKS, RECHECK_SHARE, Prior, Try, trust
from headrace.policies.reuse.record import ASSUMED_ENTRIES, LEAST_TRIES, MOST_ENTRIES, Record, learned

SIMILARITY = 0.85
RIGHT, WRONG = Try(SIMILARITY, True), Try(SIMILARITY, False)
GOOD = [(RIGHT,) * 8] * MOST_ENTRIES
TRIES = st.lists(st.builds(Try, st.floats(0, 1), st.booleans()), max_size=8)


def needed(prior: Prior) -> int:
    """Right tries until an entry serves."""
    return next(count for count in range(60) if trust((RIGHT,) * count, SIMILARITY, 0.01, prior).may_serve)


def test_few_entries_make_no_record() -> None:
    assert learned([]) is ASSUMED
    assert learned(GOOD[: ASSUMED_ENTRIES - 1]) is ASSUMED
    assert learned(GOOD[:ASSUMED_ENTRIES]) is not ASSUMED


def test_an_entry_of_an_app_that_was_always_right_needs_few_tries() -> None:
    assert LEAST_TRIES <= needed(learned(GOOD)) <= 4
    assert needed(learned(GOOD)) < needed(learned(GOOD[:30])) < needed(ASSUMED)


def test_however_good_the_record_an_entry_needs_tries_of_its_own() -> None:
    sure = learned([(RIGHT,) * 100] * MOST_ENTRIES)

    assert not trust((RIGHT,) * (LEAST_TRIES - 1), 1.0, 0.5, sure).may_serve
    assert not trust((RIGHT, RIGHT, WRONG), SIMILARITY, 0.01, sure).may_serve


def test_an_app_whose_entries_are_often_wrong_needs_more_tries_than_one_without_a_record() -> None:
    bad = (RIGHT, WRONG) * 4

    assert needed(learned([(RIGHT,) * 8, bad] * (MOST_ENTRIES // 2))) >= 3 * needed(learned(GOOD))
    assert needed(learned([bad] * MOST_ENTRIES)) > needed(ASSUMED)


def test_a_single_try_of_each_entry_says_little() -> None:
    assert needed(learned([(RIGHT,)] * MOST_ENTRIES)) >= needed(ASSUMED) // 3


def test_only_the_newest_entries_count() -> None:
    bad = [(RIGHT, WRONG) * 4] * MOST_ENTRIES

    assert learned([*GOOD, *bad]).weights == learned(bad).weights


def test_what_serves_early_is_rechecked_more_often() -> None:
    sure = learned(GOOD)
    early, later = (trust((RIGHT,) * count, SIMILARITY, 0.01, sure) for count in (needed(sure), 40))

    assert early.run_share == pytest.approx(EARLY_RECHECKS / needed(sure))
    assert early.run_share > later.run_share == RECHECK_SHARE


def test_an_app_whose_rechecks_were_wrong_is_held_to_a_smaller_bound() -> None:
    assert (
        Record().bound(0.01) == Record(rechecks=1000).bound(0.01) == Record(rechecks=1000, wrong=8).bound(0.01) == 0.01
    )
    assert Record(rechecks=1000, wrong=50).bound(0.01) == pytest.approx(0.01 / 4.8, rel=0.01)
    assert 0.002 < Record(rechecks=20, wrong=1).bound(0.01) < 0.01


@given(st.lists(TRIES, min_size=ASSUMED_ENTRIES, max_size=40))
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
