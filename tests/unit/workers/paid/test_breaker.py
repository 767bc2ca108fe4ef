import pytest

from workers.paid.breaker import FIRST_S, MOST_S, Breaker

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
    assert not breaker.is_open, "or nobody would come to be the probe"
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
