"""What the samples say about how fast a pool drains and what arrives in its lanes."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace.domain.fleet import QueueSample
from headrace.domain.queues import Lane
from headrace.policies.forecasting import LaneRates, PoolRates
from scheduler.observe import HALF_LIFE_S, outlook

START = datetime(2026, 1, 1, tzinfo=UTC)
EVERY_S = 5.0


def sample(step: int, queue: str = "chat.normal", **changes: Any) -> QueueSample:
    """A sample of a queue with nothing in it, `step` intervals after the start."""
    counts = dict.fromkeys(("depth", "oldest_wait_s", "arrivals", "refused", "started", "running", "hosts"), 0)
    values = {**counts, "slots": 4, **changes}
    return QueueSample(queue, START + timedelta(seconds=step * EVERY_S), **values)


def drained(*steps: tuple[int, int], slots: int = 4) -> list[QueueSample]:
    """Samples of one queue, from (depth, tokens started since the one before)."""
    return [
        sample(i, depth=depth, started=tokens // 10, started_tokens=tokens, slots=slots)
        for i, (depth, tokens) in enumerate(steps)
    ]


def rate(samples: Sequence[QueueSample]) -> float | None:
    """Tokens a second of the pool `chat`, for each slot."""
    return outlook(samples, {})["chat"].drain_tokens_per_s_per_slot


@pytest.mark.parametrize("samples", [[], [sample(0)], [sample(0), sample(0, "chat.high")]])
def test_a_pool_with_less_than_two_samples_is_absent(samples: list[QueueSample]) -> None:
    assert outlook(samples, {}) == {}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param([(3, 0), (3, 100)], 5.0, id="backed up"),
        pytest.param([(0, 0), (3, 100)], None, id="was empty before"),
        pytest.param([(3, 0), (0, 100)], None, id="ran empty"),
        pytest.param([(3, 0), (3, 0)], None, id="nothing started"),
        pytest.param([(3, 0), (3, 100), (0, 9), (0, 9), (9, 9), (9, 100)], 5.0, id="only while backed up"),
    ],
)
def test_the_drain_rate_counts_only_the_time_when_work_waited(
    steps: list[tuple[int, int]], expected: float | None
) -> None:
    assert rate(drained(*steps)) == (expected if expected is None else pytest.approx(expected))


def test_work_that_waits_in_one_lane_backs_the_whole_pool_up() -> None:
    samples = []
    for step in range(3):
        samples.append(sample(step, "chat.high", started=4, started_tokens=40))
        samples.append(sample(step, "chat.batch", depth=9, started=2, started_tokens=60))
    assert rate(samples) == pytest.approx((40 + 60) / EVERY_S / 4)


def test_the_drain_rate_is_of_one_slot_of_those_that_there_were_on_average() -> None:
    first, _ = drained((3, 0), (3, 0), slots=2)
    _, second = drained((3, 0), (3, 100), slots=8)
    assert rate([first, second]) == pytest.approx(100 / EVERY_S / 5)


def test_what_fills_the_empty_slots_of_a_worker_that_joins_is_not_drained() -> None:
    samples = [
        sample(0, depth=9, running=4),
        sample(1, depth=9, running=4, started=10, started_tokens=100),
        sample(2, depth=9, running=8, started=14, started_tokens=140),
    ]
    assert rate(samples) == pytest.approx(100 / EVERY_S / 4)


def test_a_job_that_is_handed_back_and_taken_again_counts_once() -> None:
    taken, handed_back, taken_again = 4, 0, 4
    samples = [
        sample(0, depth=9, running=taken),
        sample(1, depth=9, running=handed_back, started=10, started_tokens=100),
        sample(2, depth=9, running=taken_again, started=10, started_tokens=100),
    ]
    weight = 0.5 ** (EVERY_S / HALF_LIFE_S)
    assert rate(samples) == pytest.approx((140 * weight + 60) / (EVERY_S * (1 + weight)) / 4)


def test_the_drain_rate_is_of_the_slots_that_were_not_kept_for_the_lane_high() -> None:
    def seen(step: int, **high: int) -> list[QueueSample]:
        others = sample(step, "chat.low", depth=9, started=10, started_tokens=120)
        return [sample(step, "chat.high", **high), others]

    def rate_of(*samples: QueueSample) -> float | None:
        return outlook(samples, {"chat": 0.25})["chat"].drain_tokens_per_s_per_slot

    used = {"started": 1, "started_tokens": 0}
    assert rate_of(*seen(0), *seen(1)) == pytest.approx(120 / EVERY_S / 4), "the lane is not in use"
    assert rate_of(*seen(0, **used), *seen(1)) == pytest.approx(120 / EVERY_S / 3)
    assert rate_of(*seen(0, depth=1), *seen(1, depth=1)) == pytest.approx(120 / EVERY_S / 4), "it has a queue"


@pytest.mark.parametrize(("steps", "is_in_use"), [(1, True), (11, True), (13, False)])
def test_the_lane_high_is_in_use_for_a_minute_after_a_job(steps: int, is_in_use: bool) -> None:
    samples = [sample(0, "chat.high", started=1), *(sample(step, "chat.high") for step in range(1, steps + 1))]
    assert outlook(samples, {})["chat"].high_is_in_use is is_in_use


def test_a_pool_without_slots_has_no_drain_rate() -> None:
    assert rate(drained((3, 0), (3, 100), slots=0)) is None


def test_a_sample_counts_half_as_much_as_one_that_is_a_half_life_younger() -> None:
    steps = int(HALF_LIFE_S / EVERY_S)
    samples = [sample(i, depth=1, started_tokens=0) for i in range(steps + 2)]
    samples[1] = sample(1, depth=1, started_tokens=100)
    samples[-1] = sample(steps + 1, depth=1, started_tokens=400)
    weights = [0.5 ** ((steps - i) * EVERY_S / HALF_LIFE_S) for i in range(steps + 1)]
    assert weights[0] == 0.5

    assert rate(samples) == pytest.approx((0.5 * 100 + 400) / (sum(weights) * EVERY_S) / 4)


def test_a_lane_has_what_arrives_in_it_and_how_large_its_jobs_are() -> None:
    quiet = sample(1, "chat.low", arrivals=3)
    busy = [sample(i, arrivals=20, started=10, started_tokens=300) for i in range(2)]

    rates = outlook([sample(0, "chat.low"), busy[0], quiet, busy[1]], {})["chat"]

    assert rates.lanes == {Lane.NORMAL: LaneRates(pytest.approx(20 / EVERY_S * 30), pytest.approx(30))}, (
        "how large a lane's jobs are is not known before one started"
    )


def test_each_pool_has_rates_of_its_own() -> None:
    samples = [sample(i, f"{pool}.normal", depth=1, started_tokens=n) for i in (0, 1) for pool, n in RATES.items()]
    assert outlook(samples, {}) == {pool: PoolRates(pytest.approx(n / EVERY_S / 4)) for pool, n in RATES.items()}


RATES = {"chat": 100, "overflow": 700}
