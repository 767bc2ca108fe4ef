from dataclasses import dataclass, field
from functools import partial

import pytest

from headrace.domain.limits import ProviderRates
from headrace.errors import BrokerUnavailable
from workers.paid import FIRST_S, HELD_S, LONGEST_PAUSE_S, MOST_S, Breaker, Lockout, Pacer

PROBE_S = 60.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(PROBE_S, clock)


def test_it_admits_everything_until_a_failure_and_then_nothing(breaker: Breaker) -> None:
    assert all(breaker.admits() for _ in range(3))
    assert not breaker.succeeded(), "it was closed before"
    assert breaker.failed()
    assert not breaker.failed(), "it was open before"
    assert not breaker.is_closed
    assert breaker.is_open
    assert not breaker.admits()


def test_one_probe_is_admitted_when_its_time_is_over_and_closes_it(breaker: Breaker, clock: Clock) -> None:
    breaker.failed()
    clock.now_s += FIRST_S
    assert not breaker.is_open, "or no job would come to be the probe"
    assert [breaker.admits() for _ in range(3)] == [True, False, False]
    assert breaker.is_open
    assert breaker.succeeded()
    assert breaker.is_closed
    assert breaker.admits()


def test_each_probe_that_fails_doubles_the_pause_up_to_a_limit(breaker: Breaker, clock: Clock) -> None:
    breaker.failed()
    pauses_s = []
    for _ in range(9):
        began_s = clock.now_s
        while not breaker.admits():
            clock.now_s += 1
        pauses_s.append(clock.now_s - began_s)
        breaker.failed()
    assert pauses_s == [10, 20, 40, 80, 160, 320, MOST_S, MOST_S, MOST_S]


def test_it_stays_open_for_as_long_as_it_takes(breaker: Breaker, clock: Clock) -> None:
    for _ in range(2000):
        breaker.failed()
        clock.now_s += MOST_S
        assert breaker.admits()


def test_what_was_under_way_when_it_opened_says_nothing(breaker: Breaker, clock: Clock) -> None:
    breaker.failed()
    breaker.failed()
    assert not breaker.succeeded()
    clock.now_s += FIRST_S
    assert breaker.admits(), "the late failure has not doubled the pause"


def test_a_probe_that_says_neither_or_is_never_heard_of_gives_way_to_another(breaker: Breaker, clock: Clock) -> None:
    breaker.failed()
    clock.now_s += FIRST_S
    assert breaker.admits()
    breaker.is_unsure()
    assert breaker.admits()
    clock.now_s += PROBE_S
    assert breaker.admits()
    assert not breaker.is_closed


A, B = "gpt-4o-mini", "gpt-4o"


@pytest.fixture
def lockout(clock: Clock) -> Lockout:
    return Lockout([A, B], [A, B], partial(Breaker, 60.0, clock))


def test_a_model_that_is_not_for_us_closes_no_other(lockout: Lockout) -> None:
    assert lockout.model_failed(A)
    assert not lockout.model_failed(A), "it was open before"
    assert (lockout.admits(A), lockout.admits(B)) == (False, True)
    assert not lockout.is_open, "or no worker would come with jobs of the other"


def test_all_models_that_are_not_for_us_are_the_whole_api(lockout: Lockout) -> None:
    lockout.model_failed(A)
    lockout.model_failed(B)
    assert lockout.is_open


def test_a_model_that_no_new_job_is_for_is_none_that_is_left(clock: Clock) -> None:
    lockout = Lockout([A, B], [B], partial(Breaker, 60.0, clock))
    lockout.model_failed(B)
    assert lockout.is_open
    assert lockout.admits(A), "a job of former days"
    clock.now_s += FIRST_S
    assert lockout.admits(B)
    assert lockout.is_probing


def test_without_a_model_in_use_only_the_account_can_be_locked_out(clock: Clock) -> None:
    lockout = Lockout([A], [], partial(Breaker, 60.0, clock))
    assert not lockout.is_open
    lockout.account_failed(A)
    assert lockout.is_open


def test_a_locked_account_closes_all_models(lockout: Lockout) -> None:
    assert lockout.account_failed(A)
    assert lockout.is_open
    assert (lockout.admits(A), lockout.admits(B)) == (False, False)


def test_one_probe_of_any_model_opens_the_account(lockout: Lockout, clock: Clock) -> None:
    lockout.account_failed(A)
    clock.now_s += FIRST_S
    assert not lockout.is_open, "or no job would come to be the probe"
    assert (lockout.admits(B), lockout.admits(A)) == (True, False)
    assert lockout.is_probing
    assert lockout.probes(A)
    assert lockout.succeeded(B)
    assert not lockout.succeeded(B), "it was closed before"
    assert (lockout.admits(A), lockout.admits(B)) == (True, True)


def test_one_probe_of_a_model_opens_it_and_the_others_go_on_meanwhile(lockout: Lockout, clock: Clock) -> None:
    lockout.model_failed(A)
    clock.now_s += FIRST_S
    assert [lockout.admits(A) for _ in range(2)] == [True, False]
    assert (lockout.probes(A), lockout.probes(B), lockout.is_probing) == (True, False, False)
    assert lockout.admits(B)
    assert lockout.succeeded(A)
    assert lockout.admits(A)


def test_a_probe_of_the_only_model_is_one_of_the_api(clock: Clock) -> None:
    lockout = Lockout([A], [A], partial(Breaker, 60.0, clock))
    lockout.model_failed(A)
    assert not lockout.is_probing
    clock.now_s += FIRST_S
    assert lockout.admits(A)
    assert lockout.is_probing


def test_a_call_that_was_not_made_is_no_probe_of_either(lockout: Lockout, clock: Clock) -> None:
    lockout.account_failed(A)
    lockout.model_failed(A)
    clock.now_s += FIRST_S
    for _ in range(2):
        assert lockout.admits(A)
        lockout.is_unsure(A)


def test_a_probe_of_the_account_is_not_lost_on_a_model_that_is_closed(lockout: Lockout, clock: Clock) -> None:
    lockout.account_failed(A)
    clock.now_s += FIRST_S - 1
    lockout.model_failed(A)
    clock.now_s += 1
    assert not lockout.admits(A)
    assert lockout.admits(B), "the probe"


def test_a_model_that_is_closed_says_nothing_of_the_account(lockout: Lockout, clock: Clock) -> None:
    lockout.account_failed(A)
    clock.now_s += FIRST_S
    assert lockout.admits(A)
    lockout.model_failed(A)
    assert lockout.admits(B), "another probe"
    assert lockout.account_failed(B) is False, "it was open before"
    assert lockout.is_open


def test_an_account_that_is_locked_says_nothing_of_the_model(lockout: Lockout, clock: Clock) -> None:
    lockout.model_failed(A)
    clock.now_s += FIRST_S
    assert lockout.admits(A)
    lockout.account_failed(A)
    clock.now_s += FIRST_S
    assert lockout.admits(A), "a probe of both"
    assert lockout.succeeded(A)
    assert (lockout.admits(A), lockout.admits(B)) == (True, True)


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
