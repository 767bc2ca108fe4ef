"""Within how long a job must start, and when no start is soon enough."""

import pytest

from headrace.policies.routing import LatencyGoal


@pytest.mark.parametrize(
    ("run_s", "start_within_s", "misses"),
    [(None, 1.6, False), (0.5, 1.1, False), (1.59, 0.01, False), (1.61, 0.0, True), (33.0, 0.0, True)],
)
def test_what_a_job_will_run_is_taken_off_what_is_planned_of_the_goal(
    run_s: float | None, start_within_s: float, misses: bool
) -> None:
    goal = LatencyGoal("fast", 2.0, run_s)

    assert goal.start_within_s == pytest.approx(start_within_s)
    assert (goal.miss_reason is not None) is misses


def test_a_miss_is_told_with_both_times_and_the_pool() -> None:
    assert LatencyGoal("fast", 2.5, 33.04).miss_reason == (
        "latency goal: the answer would take about 33.0 s, and pool 'fast' accepts up to 2 s, 80% of its goal of 2.5 s"
    )
