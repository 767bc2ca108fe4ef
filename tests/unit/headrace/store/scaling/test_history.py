"""How moments are joined into fewer: what was offered is added up, and the pool stands as it did at the end."""

import random
from datetime import UTC, datetime, timedelta

from headrace.domain.scaling import Moment
from headrace.store.scaling.scaling_history import joined

NOW = datetime(2026, 11, 27, 9, 0, 2, tzinfo=UTC)


def moment(age_s: float, jobs: int = 1, depth: int = 0, seconds: float = 5.0) -> Moment:
    return Moment(NOW - timedelta(seconds=age_s), seconds, jobs, 10 * jobs, 2 * jobs, 3 * jobs, depth, depth, depth, 8)


def test_what_was_offered_is_added_up_and_the_newest_state_counts() -> None:
    moments = [moment(0, 1, depth=4), moment(5, 2, depth=3), moment(29.9, 3), moment(30, 4, depth=7), moment(40, 5)]
    first, last = joined(moments, 30)
    assert first == Moment(NOW - timedelta(seconds=30), 10.0, 9, 90, 18, 27, 7, 7, 7, 8)
    assert last == Moment(NOW, 15.0, 6, 60, 12, 18, 4, 4, 4, 8)


def test_steps_without_moments_are_absent_and_a_long_moment_stays_long() -> None:
    moments = [moment(0), moment(300, seconds=240.0)]
    assert joined(moments, 30) == tuple(reversed(moments))
    assert joined([], 30) == ()


def test_the_order_of_moments_does_not_matter() -> None:
    moments = [moment(5.0 * age, age, depth=age) for age in range(50)]
    shuffled = random.Random(1).sample(moments, len(moments))
    assert joined(shuffled, 30) == joined(moments, 30)
    assert len(joined(moments, 30)) == 9
