from functools import partial

import pytest

from workers.paid.breaker import FIRST_S, Breaker
from workers.paid.lockout import Lockout

A, B = "gpt-4o-mini", "gpt-4o"


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lockout(clock: Clock) -> Lockout:
    return Lockout([A, B], [A, B], partial(Breaker, 60.0, clock))


def test_a_model_that_is_not_for_us_closes_no_other(lockout: Lockout) -> None:
    assert lockout.model_failed(A)
    assert not lockout.model_failed(A), "it was open before"
    assert (lockout.admits(A), lockout.admits(B)) == (False, True)
    assert not lockout.is_open, "or nobody would come with jobs of the other"


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
    assert not lockout.is_open, "or nobody would come to be the probe"
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
