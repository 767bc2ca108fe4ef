from typing import Any

import pytest

from headrace.domain.prompts import Sampling
from headrace.domain.prompts.tools import Tools
from headrace.errors import EngineError, EngineFault, EngineUnavailable, PromptRejected
from headrace.policies.retries import (
    FIRST_PAUSE_S,
    WITHIN_S,
    Confine,
    GiveUp,
    RetryIn,
    confinement,
    decide,
    is_continuable,
    next_delivery_delay_s,
)


@pytest.mark.parametrize(
    ("error", "attempt", "delay_s"),
    [
        (EngineFault(), 1, 1.0),
        (EngineFault(), 2, 2.0),
        (EngineUnavailable(), 1, 1.0),
        (EngineFault(), 3, None),
        (EngineFault(), 4, None),
        (PromptRejected(), 1, None),
    ],
)
def test_retryable_error_is_tried_again_until_the_last_attempt(
    error: EngineError, attempt: int, delay_s: float | None
) -> None:
    decision = decide(error, attempt, max_attempts=3)

    assert decision.reason
    assert isinstance(decision, GiveUp) if delay_s is None else decision == RetryIn(delay_s, decision.reason)


def test_delay_is_bounded() -> None:
    decision = decide(EngineFault(), attempt=50, max_attempts=99)

    assert isinstance(decision, RetryIn)
    assert decision.delay_s == 60.0


@pytest.mark.parametrize(("retry_after_s", "delay_s"), [(None, 2.5), (0.5, 2.5), (100.0, 125.0)])
def test_what_the_api_asks_for_is_waited_and_nobody_comes_back_with_the_others(
    retry_after_s: float | None, delay_s: float
) -> None:
    error = EngineFault()
    error.retry_after_s = retry_after_s
    decision = decide(error, attempt=2, max_attempts=3, longer=0.25)

    assert isinstance(decision, RetryIn)
    assert decision.delay_s == delay_s


@pytest.mark.parametrize(
    ("tries", "retry_after_s", "delay_s"),
    [(1, None, 5), (2, None, 300), (3, None, None), (1, 60, 60), (2, 60, 300), (1, 10**9, 86_400)],
)
def test_webhook_follows_its_schedule_and_the_receivers_wish(
    tries: int, retry_after_s: int | None, delay_s: float | None
) -> None:
    assert next_delivery_delay_s(tries, (5, 300), retry_after_s) == delay_s


@pytest.mark.parametrize(
    ("text", "sampling", "expected"),
    [
        ("any text", Sampling(9), True),
        ("any text", Sampling(9, response_format={"type": "text"}), True),
        ("{", Sampling(9, response_format={"type": "json_object"}), False),
        ("one\n", Sampling(9, stop=("\n\n",)), False),
        ("one E", Sampling(9, stop=("x", "END")), False),
        ("one EN", Sampling(9, stop=("END",)), False),
        ("one E ", Sampling(9, stop=("END",)), True),
        ("N", Sampling(9, stop=("END",)), True),
        ("x", Sampling(9, stop=("y",)), True),
        ("x", Sampling(9, extra={"top_k": 5, "ignore_eos": True, "presence_penalty": 0.0}), True),
        ("x", Sampling(9, extra={"presence_penalty": 0.5}), False),
        ("x", Sampling(9, extra={"skip_special_tokens": False}), False),
        ("x", Sampling(9, n=2), False),
    ],
)
def test_answer_is_continued_where_the_rest_says_nothing_about_its_beginning(
    text: str, sampling: Sampling, expected: bool
) -> None:
    assert is_continuable(text, sampling) is expected


def test_a_webhooks_pause_is_lengthened_by_a_share_and_never_shortened() -> None:
    assert next_delivery_delay_s(1, (100.0,), None, 0.25) == 125
    assert next_delivery_delay_s(1, (100.0,), 200.0, 0.25) == 250
    assert next_delivery_delay_s(2, (100.0,), None, 0.25) is None


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_an_answer_with_tools_is_not_continued(choice: Any) -> None:
    assert is_continuable("The ", Sampling(9))
    assert not is_continuable("The ", Sampling(9, tools=Tools(({"name": "f"},), choice)))


# When poison prompts confine their app, and how long it pauses then.


def test_one_poison_prompt_is_an_accident_and_two_confinement() -> None:
    assert confinement(1, 3600) is None
    assert confinement(2, 3600) == Confine(3600, 0, "2 of its prompts killed engines within an hour")


def test_each_further_strike_doubles_the_pause_up_to_the_whole_confinement() -> None:
    pauses = [confine.pause_s for strikes in range(3, 8) if (confine := confinement(strikes, 600))]
    assert pauses == [FIRST_PAUSE_S, 120, 240, 480, 600]
    endless = confinement(10_000, 3600)
    assert endless is not None
    assert endless.pause_s == 3600


@pytest.mark.parametrize("strikes", [2, 50])
def test_an_operator_may_switch_it_off(strikes: int) -> None:
    assert confinement(strikes, 0) is None


def test_a_steady_attacker_kills_few_engines_an_hour() -> None:
    """Each prompt kills at once, as soon as it may start. Strikes of more than an hour ago do not count."""
    at, struck = 0.0, list[float]()
    while at < 24 * 3600:
        struck.append(at)
        confine = confinement(sum(at - each < WITHIN_S for each in struck), 3600)
        at += 1 + (confine.pause_s if confine else 0)
    busiest = max(sum(0 <= each - first < WITHIN_S for each in struck) for first in struck)
    assert busiest <= 8
    assert len(struck) < 24 * 6
