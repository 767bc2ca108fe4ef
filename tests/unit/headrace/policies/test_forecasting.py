"""How a lane drains beside the others, and the outlook as text."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.domain.queues import Lane
from headrace.policies.answers import BOUNDS, ExpectedOutput
from headrace.policies.forecasting import (
    HORIZON_S,
    DrainCurve,
    LaneFlow,
    LaneRates,
    PoolRates,
    drain_curve,
    from_json,
    to_json,
)

TAKES = {Lane.HIGH: 10, Lane.NORMAL: 4, Lane.LOW: 1, Lane.BATCH: 1}


def flows(mean: float = 100.0, **changes: LaneFlow) -> dict[Lane, LaneFlow]:
    """All four lanes, empty and quiet but for those given."""
    return {lane: changes.get(lane, LaneFlow(takes, 0, 0, mean)) for lane, takes in TAKES.items()}


def backlog(lane: Lane, tokens: float, arriving: float = 0, mean: float = 100.0) -> LaneFlow:
    return LaneFlow(TAKES[lane], tokens, arriving, mean)


class TestOutlookAsText:
    @pytest.mark.parametrize("drain", [None, 12.5])
    def test_it_is_read_as_it_was_written(self, drain: float | None) -> None:
        outputs = {Lane.LOW: ExpectedOutput(9, tuple(float(bound) for bound in BOUNDS))}
        rates = PoolRates(drain, {Lane.HIGH: LaneRates(1.5, 80.0)}, True, outputs, 0.02)
        outlook = {"chat": rates, "overflow": PoolRates(None)}
        assert from_json(to_json(outlook)) == outlook

    def test_what_an_older_version_wrote_is_read(self) -> None:
        text = '{"chat": {"drain_tokens_per_s_per_slot": 5.0, "lanes": {}}}'
        assert from_json(text) == {"chat": PoolRates(5.0)}

    def test_what_a_newer_version_wrote_is_read_as_far_as_this_one_knows_it(self) -> None:
        high = {"arrival_tokens_per_s": 1.5, "mean_tokens": 80.0, "later": 1}
        outputs = {"urgent": [9, 1.0], "low": [9, *BOUNDS]}
        rates = {"drain_tokens_per_s_per_slot": 5.0, "lanes": {"high": high, "urgent": high}, "outputs": outputs}
        learned = {Lane.LOW: ExpectedOutput(9, BOUNDS)}
        expected = PoolRates(5.0, {Lane.HIGH: LaneRates(1.5, 80.0)}, outputs=learned)
        assert from_json(json.dumps({"chat": {**rates, "later": 1}})) == {"chat": expected}

    def test_an_empty_one_is_empty(self) -> None:
        assert from_json(to_json({})) == {}


class TestRunTime:
    def test_it_follows_the_likely_length_of_the_answer(self) -> None:
        learned = {Lane.LOW: ExpectedOutput(10**6, tuple(min(bound, 40.0) for bound in BOUNDS))}
        rates = PoolRates(None, outputs=learned, run_s_per_token=0.05)

        assert rates.run_s(Lane.LOW, 1000) == pytest.approx(41 * 0.05, rel=0.05)
        assert rates.run_s(Lane.HIGH, 1000) == pytest.approx(1000 * 0.05), "nothing was learned of this lane"
        assert PoolRates(None, outputs=learned).run_s(Lane.LOW, 1000) is None


class TestCurve:
    curve = DrainCurve((0.0, 1.0, 3.0, 4.0), (0.0, 10.0, 10.0, 30.0))

    @pytest.mark.parametrize(("tokens", "seconds"), [(0, 0.0), (5, 0.5), (10, 1.0), (20, 3.5), (30, 4.0), (31, None)])
    def test_when_so_many_tokens_are_drained(self, tokens: float, seconds: float | None) -> None:
        assert self.curve.seconds_until(tokens) == seconds

    @pytest.mark.parametrize(
        ("seconds", "tokens"), [(0, 0.0), (0.5, 5.0), (2, 10.0), (3.5, 20.0), (4, 30.0), (9, 30.0)]
    )
    def test_what_is_drained_within_so_many_seconds(self, seconds: float, tokens: float) -> None:
        assert self.curve.tokens_within(seconds) == tokens


class TestDrain:
    @pytest.mark.parametrize("lane", Lane)
    def test_a_lane_alone_has_the_whole_pool(self, lane: Lane) -> None:
        curve = drain_curve(lane, flows(), 50)
        assert curve.seconds_until(500) == pytest.approx(10)
        assert curve.tokens_within(100) == pytest.approx(5000)

    @pytest.mark.parametrize("lane", Lane)
    def test_with_work_in_all_lanes_each_drains_its_share_of_the_takes(self, lane: Lane) -> None:
        full = {str(each): backlog(each, 1e9) for each in Lane}
        assert drain_curve(lane, flows(**full), 160).tokens_within(10) == pytest.approx(160 * 10 * TAKES[lane] / 16)

    def test_a_lane_of_larger_jobs_drains_more_tokens_with_as_many_takes(self) -> None:
        full = {str(each): backlog(each, 1e9) for each in (Lane.NORMAL, Lane.LOW, Lane.BATCH)}
        lanes = flows(high=backlog(Lane.HIGH, 1e9, mean=300), **full)
        assert drain_curve(Lane.HIGH, lanes, 100).tokens_within(1) == pytest.approx(100 * 3000 / 3600)
        assert drain_curve(Lane.NORMAL, lanes, 100).tokens_within(1) == pytest.approx(100 * 400 / 3600)

    def test_what_a_lane_leaves_goes_to_the_best_that_has_work(self) -> None:
        lanes = flows(normal=backlog(Lane.NORMAL, 1e9), batch=backlog(Lane.BATCH, 1e9))
        assert drain_curve(Lane.NORMAL, lanes, 160).tokens_within(10) == pytest.approx(160 * 10 * 15 / 16)
        assert drain_curve(Lane.BATCH, lanes, 160).tokens_within(10) == pytest.approx(160 * 10 / 16)

    def test_a_lane_that_runs_empty_leaves_its_share_to_the_others(self) -> None:
        lanes = flows(high=backlog(Lane.HIGH, 1000))
        curve = drain_curve(Lane.NORMAL, lanes, 140)
        # High has 10 takes of 14 until its 1,000 tokens are gone, at 10 s.
        assert curve.tokens_within(10) == pytest.approx(400, rel=0.05)
        assert curve.tokens_within(20) == pytest.approx(400 + 1400, rel=0.02)

    def test_what_will_arrive_in_a_better_lane_is_reckoned_with(self) -> None:
        lanes = flows(high=backlog(Lane.HIGH, 0, arriving=60))
        assert drain_curve(Lane.BATCH, lanes, 100).tokens_within(100) == pytest.approx(4000, rel=0.01)

    def test_a_lane_keeps_its_share_whatever_arrives_in_a_better_one(self) -> None:
        lanes = flows(high=backlog(Lane.HIGH, 0, arriving=1e6))
        assert drain_curve(Lane.BATCH, lanes, 160).tokens_within(10) == pytest.approx(100)

    def test_other_lanes_drain_without_the_slots_that_are_kept_for_the_lane_high(self) -> None:
        lanes = flows(high=backlog(Lane.HIGH, 0, arriving=20), low=backlog(Lane.LOW, 1e9))
        # An eighth of the slots is kept: 87.5 of 100 are drained, 20 of `high`; a sixteenth of the takes is `low`'s.
        own = drain_curve(Lane.NORMAL, lanes, 100, kept_share=1 / 8).tokens_within(10)
        assert own == pytest.approx(10 * (87.5 - 20 - 87.5 / 16))
        assert drain_curve(Lane.NORMAL, lanes, 100).tokens_within(10) == pytest.approx(10 * (100 - 20 - 100 / 16))
        assert drain_curve(Lane.HIGH, lanes, 100, kept_share=1 / 8).tokens_within(10) == pytest.approx(1000 * 15 / 16)

    def test_a_lane_high_with_a_queue_uses_the_slots_that_are_kept_for_it(self) -> None:
        full = {str(each): backlog(each, 1e9) for each in Lane}
        for lane in Lane:
            drained = drain_curve(lane, flows(**full), 160, kept_share=1 / 8).tokens_within(10)
            assert drained == pytest.approx(160 * 10 * TAKES[lane] / 16)

    def test_a_pool_that_drains_nothing_never_gets_anywhere(self) -> None:
        curve = drain_curve(Lane.HIGH, flows(), 0)
        assert curve.seconds_until(1) is None
        assert curve.tokens_within(HORIZON_S) == 0

    def test_what_takes_longer_than_any_job_may_wait_is_not_forecast(self) -> None:
        curve = drain_curve(Lane.HIGH, flows(), 1)
        assert curve.seconds_until(0.9 * HORIZON_S) == pytest.approx(0.9 * HORIZON_S)
        assert curve.seconds_until(2 * HORIZON_S) is None

    @given(st.sampled_from(Lane), st.lists(st.integers(0, 10_000), min_size=4, max_size=4), st.floats(0, 1000))
    def test_a_curve_rises_and_never_faster_than_the_pool_drains(
        self, own: Lane, waiting: list[int], drain: float
    ) -> None:
        lanes = flows(**{str(lane): backlog(lane, tokens) for lane, tokens in zip(Lane, waiting, strict=True)})
        curve = drain_curve(own, lanes, drain)
        points = list(zip(curve.times_s, curve.tokens, strict=True))
        for (t0, n0), (t1, n1) in pairwise(points):
            assert t0 < t1
            assert 0 <= n1 - n0 <= drain * (t1 - t0) * (1 + 1e-9)
        assert points[0] == (0, 0)
