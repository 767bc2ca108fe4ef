"""How long a job will likely wait, at the positions where the answer changes its kind."""

from typing import Any, cast

import pytest

from api.catalogue import Catalogue
from api.forecast import Forecast
from headrace.admission import Admission
from headrace.config import Settings
from headrace.store.workers import Fleet


@pytest.fixture
def forecast(door: Any, catalogue: Catalogue, settings: Settings) -> Forecast:
    return Forecast(cast(Admission, door), catalogue, settings.pools)


def alive(workers: int, slots: int, running: int) -> Fleet:
    return Fleet("chat", workers, 1, slots, running, None, None)


def test_nobody_can_tell_while_no_worker_is_alive(forecast: Forecast) -> None:
    assert forecast.expected_wait_s("chat.normal", 1) is None


@pytest.mark.parametrize(("position", "wait_s"), [(1, 0.0), (3, 0.0), (4, 0.25), (7, 1.0)])
def test_free_slots_take_the_first_jobs_at_once(
    forecast: Forecast, fleet: dict[str, Fleet], position: int, wait_s: float
) -> None:
    fleet["chat"] = alive(workers=2, slots=8, running=5)
    # Two workers that are believed to manage 2 jobs/s each.
    assert forecast.expected_wait_s("chat.normal", position) == wait_s


def test_an_observed_rate_wins_over_a_believed_one(forecast: Forecast, door: Any, fleet: dict[str, Fleet]) -> None:
    fleet["chat"] = alive(workers=1, slots=1, running=1)
    door.rate = 0.5
    assert forecast.expected_wait_s("chat.normal", 3) == 6.0


def test_a_queue_of_no_pool_has_only_an_observed_rate(forecast: Forecast, door: Any) -> None:
    assert forecast.drain_rate("overflow.normal") is None
