"""When poison prompts confine their app, and how long it pauses then."""

import pytest

from headrace.policies.confinement import FIRST_PAUSE_S, WITHIN_S, Confine, decide


def test_one_poison_prompt_is_an_accident_and_two_confine() -> None:
    assert decide(1, 3600) is None
    assert decide(2, 3600) == Confine(3600, 0, "2 of its prompts killed engines within an hour")


def test_each_further_strike_doubles_the_pause_up_to_the_whole_confinement() -> None:
    pauses = [confine.pause_s for strikes in range(3, 8) if (confine := decide(strikes, 600))]
    assert pauses == [FIRST_PAUSE_S, 120, 240, 480, 600]
    endless = decide(10_000, 3600)
    assert endless is not None
    assert endless.pause_s == 3600


@pytest.mark.parametrize("strikes", [2, 50])
def test_an_operator_may_switch_it_off(strikes: int) -> None:
    assert decide(strikes, 0) is None


def test_a_steady_attacker_kills_few_engines_an_hour() -> None:
    """Each prompt kills at once, as soon as it may start. Strikes of more than an hour ago do not count."""
    at, struck = 0.0, list[float]()
    while at < 24 * 3600:
        struck.append(at)
        confine = decide(sum(at - each < WITHIN_S for each in struck), 3600)
        at += 1 + (confine.pause_s if confine else 0)
    busiest = max(sum(0 <= each - first < WITHIN_S for each in struck) for first in struck)
    assert busiest <= 8
    assert len(struck) < 24 * 6
