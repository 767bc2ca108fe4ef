"""The rule by which the lanes of a pool share its takes."""

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from headrace.config import Settings
from headrace.domain.queues import Lane
from headrace.policies.lanes import preference, schedule

TAKES = {Lane.HIGH: 10, Lane.NORMAL: 4, Lane.LOW: 1, Lane.BATCH: 1}
SHARES = st.dictionaries(st.sampled_from(Lane), st.integers(1, 20), min_size=1)


def test_the_shares_that_come_with_the_system_are_10_4_1_1_of_16() -> None:
    assert {lane: Settings().lane(lane).takes for lane in Lane} == TAKES
    assert Counter(schedule(TAKES)) == TAKES


@given(SHARES)
def test_each_lane_has_its_takes_in_a_round(takes: dict[Lane, int]) -> None:
    assert Counter(schedule(takes)) == takes


@given(SHARES)
def test_each_lanes_takes_are_spread_evenly_over_the_round(takes: dict[Lane, int]) -> None:
    round_, total = schedule(takes), sum(takes.values())
    for lane, weight in takes.items():
        for first in range(1, total + 1):
            due = first * weight / total
            assert abs(round_[:first].count(lane) - due) < len(takes), "never far from its share"


def test_the_best_lane_is_never_kept_waiting_for_more_than_one_take() -> None:
    twice = schedule(TAKES) * 2
    assert all(Lane.HIGH in pair for pair in pairwise(twice))


def test_lanes_with_equal_shares_take_turns_best_first() -> None:
    assert schedule(dict.fromkeys(reversed(Lane), 1)) == tuple(Lane)


def test_a_lane_is_looked_into_at_its_turn_and_then_the_others_best_first() -> None:
    lanes = [Lane.BATCH, Lane.HIGH, Lane.LOW, Lane.NORMAL]
    assert preference(Lane.LOW, lanes) == [Lane.LOW, Lane.HIGH, Lane.NORMAL, Lane.BATCH]
    assert preference(Lane.HIGH, lanes) == list(Lane)


def test_the_turn_of_a_lane_that_is_not_there_goes_to_the_best_one() -> None:
    assert preference(Lane.HIGH, [Lane.BATCH, Lane.LOW]) == [Lane.LOW, Lane.BATCH]
