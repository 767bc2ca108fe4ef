from dataclasses import dataclass, field

import pytest

from headrace.domain.limits.rates import ProviderRates
from headrace.errors import BrokerUnavailable
from workers.paid.pacer import HELD_S, LONGEST_PAUSE_S, Pacer


@dataclass
class Pace:
    """Says these waits, one after the other, and 0 once they have run out."""

    waits: list[float] = field(default_factory=list)
    heard: list[tuple[str, ProviderRates, float]] = field(default_factory=list)
    is_down: bool = False

    def ask(self, model: str, call: str, tokens: int) -> float:
        if self.is_down:
            raise BrokerUnavailable("gone")
        return self.waits.pop(0) if self.waits else 0.0

    def hear(self, model: str, rates: ProviderRates, hold_s: float = 0.0) -> None:
        if self.is_down:
            raise BrokerUnavailable("gone")
        self.heard.append((model, rates, hold_s))


@dataclass
class Time:
    now_s: float = 100.0
    slept: list[float] = field(default_factory=list)
    open_meanwhile: list[bool] = field(default_factory=list)
    pacer: Pacer | None = None

    def advance(self, seconds: float) -> None:
        assert self.pacer is not None
        self.open_meanwhile.append(self.pacer.is_open)
        self.slept.append(seconds)
        self.now_s += seconds


@pytest.fixture
def pace() -> Pace:
    return Pace()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def reopened() -> list[bool]:
    return []


@pytest.fixture
def pacer(pace: Pace, time: Time, reopened: list[bool]) -> Pacer:
    time.pacer = Pacer(pace, lambda: reopened.append(True), lambda: time.now_s, time.advance)  # type: ignore[arg-type]
    return time.pacer


def test_a_call_goes_at_once_where_there_is_room(pacer: Pacer, time: Time, reopened: list[bool]) -> None:
    assert pacer.wait("m", "c", 10) == 0
    assert (time.slept, pacer.is_open, reopened) == ([], True, [])


def test_a_short_wait_is_waited_for_and_meanwhile_no_more_is_taken(
    pacer: Pacer, pace: Pace, time: Time, reopened: list[bool]
) -> None:
    pace.waits = [1.5, 0.25]

    assert pacer.wait("m", "c", 10) == 0
    assert time.slept == [1.5, 0.25]
    assert time.open_meanwhile == [False, False]
    assert (pacer.is_open, reopened) == (True, [True])


@pytest.mark.parametrize("waits", [[HELD_S + 1], [3.0, 2.5]])
def test_a_wait_too_long_for_a_slot_is_given_back_and_closes_the_door_for_so_long(
    pacer: Pacer, pace: Pace, time: Time, waits: list[float]
) -> None:
    pace.waits = list(waits)

    assert pacer.wait("m", "c", 10) == waits[-1]
    assert sum(time.slept) <= HELD_S
    assert not pacer.is_open
    time.now_s += waits[-1]
    assert pacer.is_open


def test_the_door_opens_again_however_long_the_rates_are_used_up(pacer: Pacer, pace: Pace, time: Time) -> None:
    pace.waits = [7 * 86_400.0]

    assert pacer.wait("m", "c", 10) == LONGEST_PAUSE_S
    assert not pacer.is_open
    time.now_s += LONGEST_PAUSE_S
    assert pacer.is_open


def test_a_model_whose_rates_are_used_up_keeps_others_out_for_no_longer_than_it_may(pace: Pace, time: Time) -> None:
    pacer = Pacer(pace, lambda: None, lambda: time.now_s, time.advance, longest_closed_s=HELD_S)  # type: ignore[arg-type]
    pace.waits = [50.0]

    assert pacer.wait("used up", "c", 10) == 50
    assert not pacer.is_open
    time.now_s += HELD_S
    assert pacer.is_open
    assert pacer.wait("other", "d", 10) == 0


def test_what_an_answer_says_is_passed_on(pacer: Pacer, pace: Pace) -> None:
    rates = ProviderRates(1.0)
    pacer.hear("m", rates, None)
    pacer.hear("m", rates, 7.0)
    pacer.hear("m", None, 7.0)

    assert pace.heard == [("m", rates, 0.0), ("m", rates, 7.0)]


def test_without_redis_calls_go_as_if_nothing_were_known(pacer: Pacer, pace: Pace) -> None:
    pace.is_down = True
    pacer.hear("m", ProviderRates(1.0), None)

    assert pacer.wait("m", "c", 10) == 0
