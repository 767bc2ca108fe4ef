"""Refused jobs that count as demand: an app's that is alone, and beside others a multiple of what it was served."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import ScalingSettings
from headrace.domain.ids import new_id
from headrace.domain.scaling import DemandHistory, Moment, PoolHosts
from headrace.policies.scaling.decisions import decide
from headrace.policies.scaling.discount import counted_shares

LOOP, HONEST, NEW = (new_id() for _ in range(3))
#: Tokens a second. Smaller ones than any that occur are lost among the roundings.
RATES = st.just(0.0) | st.floats(0.001, 1e6)
NOW = datetime(2026, 12, 1, 9, tzinfo=UTC)


def test_an_app_that_is_alone_counts_in_full() -> None:
    assert counted_shares({LOOP: 1e6}, {LOOP: 1.0}, 10.0, 10.0) == {LOOP: 1.0}
    assert counted_shares({LOOP: 1e6}, {}, 10.0, 10.0) == {LOOP: 1.0}


def test_beside_others_an_app_counts_for_a_multiple_of_what_it_was_served() -> None:
    served = {LOOP: 2.0, HONEST: 20.0}
    # 10 times 2 tokens a second, for 10 s.
    assert counted_shares({LOOP: 20_000.0, HONEST: 1000.0}, served, 10.0, 10.0) == {LOOP: 0.01, HONEST: 1.0}
    assert counted_shares({LOOP: 200.0}, served, 10.0, 10.0) == {LOOP: 1.0}, "tenfold growth is followed at once"


def test_an_app_that_was_not_served_yet_counts_by_its_accepted_jobs_alone() -> None:
    assert counted_shares({NEW: 500.0}, {HONEST: 20.0}, 10.0, 10.0) == {NEW: 0.0}
    assert counted_shares({NEW: 500.0, HONEST: 1.0}, {}, 10.0, 10.0) == {NEW: 0.0, HONEST: 0.0}


@given(st.floats(1, 1e9), st.floats(1, 10), RATES, st.just(0.0) | st.floats(0.001, 100))
def test_more_refused_jobs_never_count_for_less(refused: float, more: float, rate: float, multiple: float) -> None:
    def counted(tokens: float) -> float:
        return tokens * counted_shares({LOOP: tokens}, {LOOP: rate, HONEST: 1.0}, 10.0, multiple)[LOOP]

    assert counted(refused * more) >= counted(refused) * (1 - 1e-9)
    assert counted(refused) <= refused


@pytest.mark.parametrize("policy", ["predictive", "reactive", "fixed", "schedule"])
def test_a_decision_says_what_did_not_count(policy: str) -> None:
    settings = ScalingSettings(policy=policy)  # type: ignore[arg-type]

    def reason(discounted: int, age_s: float) -> str:
        plain = Moment(NOW, 30.0, 10, 1000, 0, 0, 0, 0, 4, 20)
        before = Moment(NOW - timedelta(seconds=age_s), 30.0, 10, 1000, 0, 0, 0, 0, 4, 20, discounted, 24 * discounted)
        return decide(DemandHistory((before, plain)), PoolHosts(ready=2), settings, NOW).reason

    said = "; 1,180 refused jobs of 28,320 tokens are repeats or excess, and do not count"
    assert reason(1180, 30.0) == reason(0, 30.0) + said
    assert "do not count" not in reason(0, 30.0)
    assert "do not count" not in reason(1180, 601.0), "what was refused before the window is over"
