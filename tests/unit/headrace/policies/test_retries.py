from typing import Any

import pytest

from headrace.domain.prompts import Sampling
from headrace.domain.prompts.tools import Tools
from headrace.errors import EngineError, EngineFault, EngineUnavailable, PromptRejected
from headrace.policies.retries import GiveUp, RetryIn, decide, is_continuable, next_delivery_delay_s


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
