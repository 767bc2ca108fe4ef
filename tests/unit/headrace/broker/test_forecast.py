"""How long a job will likely wait, at the places where the answer changes its kind, and what a queue drains in time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from headrace.broker.admission import Admission, Standing
from headrace.broker.forecast import LIVE_TTL_S, OUTLOOK_TTL_S, Forecast
from headrace.config import PoolSettings, Settings
from headrace.domain.fleet import Fleet
from headrace.domain.places import Load
from headrace.domain.queues import Lane
from headrace.errors import BrokerUnavailable, HeadraceError
from headrace.policies.forecasting import LaneRates, PoolRates, to_json


class FakeAdmission:
    """What Redis knows of the queues."""

    def __init__(self) -> None:
        self.backlog: dict[str, Load] = {}
        self.rates: str | None = None
        self.departures = 0
        self.failure: HeadraceError | None = None

    def loads(self, queues: Sequence[str]) -> dict[str, Load]:
        if self.failure is not None:
            raise self.failure
        return {queue: self.backlog.get(queue, Load(0, 0, 0, 0)) for queue in queues}

    def standing(self, read_fleets: Callable[[], Mapping[str, Fleet]]) -> Standing:
        return Standing({"chat": self.departures}, read_fleets())

    def outlook(self) -> str | None:
        return self.rates


@pytest.fixture
def admission() -> FakeAdmission:
    return FakeAdmission()


@pytest.fixture
def fleet() -> dict[str, Fleet]:
    """The live workers by pool, as Postgres would tell."""
    return {}


@pytest.fixture
def settings() -> Settings:
    return Settings.load(pools={"chat": PoolSettings(engine="simulator")})


@pytest.fixture
def forecast(admission: FakeAdmission, fleet: dict[str, Fleet], settings: Settings) -> Forecast:
    return Forecast(cast(Admission, admission), lambda: fleet, settings)


def alive(workers: int, slots: int, running: int) -> Fleet:
    return Fleet("chat", workers, 1, slots, running, None, None)


def observed(tokens_per_s_per_slot: float | None, **lanes: LaneRates) -> str:
    return to_json({"chat": PoolRates(tokens_per_s_per_slot, {Lane(lane): rates for lane, rates in lanes.items()})})


def test_nobody_can_tell_while_no_worker_is_alive(forecast: Forecast) -> None:
    assert forecast.expected_wait_s("chat.normal", 1, 0, free=0) is None
    assert forecast.seconds_to_drain("chat.normal", 100) is None
    assert forecast.pool("chat").drain_tokens_per_s == 0


@pytest.mark.parametrize(("position", "wait_s"), [(1, 0.0), (3, 0.0), (4, 0.25), (7, 1.0)])
def test_free_slots_take_the_first_jobs_at_once(
    forecast: Forecast, fleet: dict[str, Fleet], position: int, wait_s: float
) -> None:
    fleet["chat"] = alive(workers=2, slots=8, running=5)
    # Two workers that are believed to manage 2 jobs/s each; the jobs before this one have 300 tokens each.
    ahead_tokens = 300 * (position - 1)
    door_load = Load(position - 1, ahead_tokens, 1, ahead_tokens)
    cast(Any, forecast)._admission.backlog["chat.normal"] = door_load
    assert forecast.expected_wait_s("chat.normal", position, ahead_tokens, free=3) == wait_s


def test_free_slots_are_counted_by_who_leaves_the_queues(
    forecast: Forecast, admission: FakeAdmission, fleet: dict[str, Fleet]
) -> None:
    fleet["chat"] = alive(workers=2, slots=8, running=5)
    admission.departures = 100
    assert forecast.free_until("chat.low") == 103
    assert forecast.wait_if_submitted_s("chat.low") == 0.0


def test_slots_that_are_kept_for_the_lane_high_are_free_for_it_alone(
    forecast: Forecast, admission: FakeAdmission, fleet: dict[str, Fleet], settings: Settings
) -> None:
    # Of 32 slots, as many as one worker has, 2 are kept.
    fleet["chat"] = alive(workers=1, slots=32, running=29)
    assert [forecast.pool("chat").free(lane) for lane in Lane] == [3, 3, 3, 3], "`high` is not in use"
    admission.rates = to_json({"chat": PoolRates(10.0, high_is_in_use=True)})
    again = Forecast(cast(Admission, admission), lambda: fleet, settings)
    assert [again.pool("chat").free(lane) for lane in Lane] == [3, 1, 1, 1]
    assert (again.free_until("chat.high"), again.free_until("chat.low")) == (3, 1)
    # Alone, it drains what 30 slots do.
    assert again.seconds_to_drain("chat.normal", 3000) == pytest.approx(10)
    assert again.seconds_to_drain("chat.high", 3200) == pytest.approx(10)


@pytest.mark.parametrize(
    ("running", "ran_s", "drained_s"),
    [
        (8, 0.0, 11.0),  # All began just now, and nothing leaves the queue before they end.
        (8, 4.0, 7.0),
        (8, 10.9, 1.375),  # The queue drains a job each 11/8 s in the long run.
        (8, 30.0, 1.375),
        (8, None, 1.375),
        (7, 0.0, 1.375),
    ],
)
def test_nothing_leaves_a_queue_before_a_running_job_ends(
    forecast: Forecast,
    admission: FakeAdmission,
    fleet: dict[str, Fleet],
    running: int,
    ran_s: float | None,
    drained_s: float,
) -> None:
    fleet["chat"] = replace(alive(workers=1, slots=8, running=running), ran_s=ran_s)
    admission.rates = observed(100.0)
    admission.backlog["chat.normal"] = Load(2, 2200, 1, 2200)
    assert forecast.seconds_to_drain("chat.normal", 1100) == pytest.approx(drained_s, rel=0.01)


def test_an_observed_rate_wins_over_a_believed_one(
    forecast: Forecast, admission: FakeAdmission, fleet: dict[str, Fleet]
) -> None:
    fleet["chat"] = alive(workers=1, slots=2, running=2)
    admission.rates = observed(50.0)
    admission.backlog["chat.normal"] = Load(2, 600, 1, 600)
    # 600 tokens before it, and a slot's worth of 300 more, at 2 x 50 a second.
    assert forecast.expected_wait_s("chat.normal", 3, 600, free=0) == 9.0
    assert forecast.wait_if_submitted_s("chat.normal") == 9.0


def test_a_worker_that_joins_counts_at_once(
    forecast: Forecast, admission: FakeAdmission, fleet: dict[str, Fleet]
) -> None:
    fleet["chat"] = alive(workers=2, slots=4, running=4)
    admission.rates = observed(50.0)
    assert forecast.pool("chat").drain_tokens_per_s == 200
    assert forecast.seconds_to_drain("chat.high", 400) == 2.0


def test_a_lane_has_its_share_while_a_better_one_has_work(
    forecast: Forecast, admission: FakeAdmission, fleet: dict[str, Fleet]
) -> None:
    fleet["chat"] = alive(workers=1, slots=1, running=1)
    admission.rates = observed(140.0)
    admission.backlog |= {
        "chat.high": Load(1000, 1_000_000, 1, 1_000_000),
        "chat.normal": Load(1000, 1_000_000, 1, 1_000_000),
    }
    # Of 16 takes 10 are for `high` and 4 for `normal`; those of the two others, which have no work, go to `high`.
    assert forecast.seconds_to_drain("chat.high", 1000) == pytest.approx(1000 / 140 * 16 / 12, rel=0.01)
    assert forecast.seconds_to_drain("chat.normal", 1000) == pytest.approx(1000 / 140 * 16 / 4, rel=0.01)


def test_only_what_was_measured_bounds_what_may_be_ahead(
    forecast: Forecast, admission: FakeAdmission, fleet: dict[str, Fleet], settings: Settings
) -> None:
    fleet["chat"] = alive(workers=1, slots=1, running=1)
    assert forecast.ahead_cap_tokens("chat.normal", 30) is None
    admission.rates = observed(50.0)
    again = Forecast(cast(Admission, admission), lambda: fleet, settings)
    assert again.ahead_cap_tokens("chat.normal", 30) == pytest.approx(1500, abs=1)


def test_the_mean_job_of_late_stands_for_those_to_come(
    forecast: Forecast, admission: FakeAdmission, fleet: dict[str, Fleet]
) -> None:
    fleet["chat"] = alive(workers=1, slots=1, running=1)
    admission.rates = observed(50.0, normal=LaneRates(arrival_tokens_per_s=0.0, mean_tokens=200.0))
    assert forecast.expected_wait_s("chat.normal", 1, 0, free=0) == 4.0


def test_the_queues_of_the_paid_api_have_only_an_observed_rate(forecast: Forecast, fleet: dict[str, Fleet]) -> None:
    fleet["overflow"] = Fleet("overflow", 1, 1, 8, 8, None, None)
    assert forecast.expected_wait_s("overflow.normal", 1, 0, free=0) is None


def test_figures_are_read_again_only_when_they_are_old(
    forecast: Forecast, admission: FakeAdmission, fleet: dict[str, Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr("headrace.cached_value.time", SimpleNamespace(monotonic=lambda: clock.now_s))
    fleet["chat"] = alive(workers=1, slots=1, running=1)
    assert forecast.pool("chat").loads[Lane.NORMAL].jobs == 0
    admission.backlog["chat.normal"] = Load(5, 500, 1, 500)
    admission.rates = observed(50.0)
    assert forecast.pool("chat").loads[Lane.NORMAL].jobs == 0
    clock.now_s += LIVE_TTL_S * 1.1
    now = forecast.pool("chat")
    assert (now.loads[Lane.NORMAL].jobs, now.is_measured) == (5, False)
    clock.now_s += OUTLOOK_TTL_S
    assert forecast.pool("chat").is_measured


def test_an_outage_is_told_and_not_remembered(forecast: Forecast, admission: FakeAdmission) -> None:
    admission.failure = BrokerUnavailable()
    with pytest.raises(BrokerUnavailable):
        forecast.pool("chat")
    admission.failure = None
    assert asdict(forecast.pool("chat"))["is_measured"] is False


@pytest.mark.parametrize(
    ("lane", "jobs"),
    [("high", 195), ("normal", 390), ("low", 585), ("batch", 780)],
    ids=["high", "normal", "low", "batch"],
)
def test_a_queue_is_as_far_behind_as_it_and_the_lanes_above_it(
    forecast: Forecast, admission: FakeAdmission, fleet: dict[str, Fleet], lane: str, jobs: int
) -> None:
    fleet["chat"] = alive(workers=1, slots=8, running=8)
    admission.backlog = {f"chat.{each}": Load(195, 1000, 1, 1000) for each in Lane}
    assert forecast.pressure(f"chat.{lane}").jobs == jobs


def test_a_lane_full_of_batches_puts_no_other_job_behind(
    forecast: Forecast, admission: FakeAdmission, fleet: dict[str, Fleet]
) -> None:
    fleet["chat"] = alive(workers=1, slots=8, running=8)
    admission.backlog = {"chat.batch": Load(250, 1000, 1, 1000)}
    assert forecast.pressure("chat.normal").behind == 0
