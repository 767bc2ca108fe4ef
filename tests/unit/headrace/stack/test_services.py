"""When a process that ended is started again."""

import pytest

from headrace.stack.services import FIRST_DELAY_S, MAX_DELAY_S, STEADY_S, decide_restart


def test_the_pause_doubles_with_each_short_life_up_to_a_limit() -> None:
    delays, failures = [], 0
    for _ in range(2000):
        restart = decide_restart(failures, ran_s=1.0, give_up_after=None)
        failures = restart.failures
        delays.append(restart.delay_s)
    assert delays[:4] == [FIRST_DELAY_S, 2 * FIRST_DELAY_S, 4 * FIRST_DELAY_S, 8 * FIRST_DELAY_S]
    assert set(delays[10:]) == {MAX_DELAY_S}


def test_a_long_life_wipes_the_slate_clean() -> None:
    restart = decide_restart(7, ran_s=STEADY_S, give_up_after=5)
    assert (restart.failures, restart.delay_s) == (1, FIRST_DELAY_S)


@pytest.mark.parametrize(("failures", "gives_up"), [(0, False), (3, False), (4, True), (9, True)])
def test_it_gives_up_at_the_limit_and_not_before(failures: int, gives_up: bool) -> None:
    assert (decide_restart(failures, ran_s=1.0, give_up_after=5).delay_s is None) is gives_up
