import pytest

from headrace.errors import EngineFault, EngineUnavailable, HeadraceError, PromptRejected
from workers.retry import GiveUp, RetryIn, decide, next_delivery_delay_s


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
    error: HeadraceError, attempt: int, delay_s: float | None
) -> None:
    decision = decide(error, attempt, max_attempts=3)

    assert decision.reason
    assert isinstance(decision, GiveUp) if delay_s is None else decision == RetryIn(delay_s, decision.reason)


def test_delay_is_bounded() -> None:
    decision = decide(EngineFault(), attempt=50, max_attempts=99)

    assert isinstance(decision, RetryIn)
    assert decision.delay_s == 60.0


@pytest.mark.parametrize(
    ("tries", "retry_after_s", "delay_s"),
    [(1, None, 5), (2, None, 300), (3, None, None), (1, 60, 60), (2, 60, 300), (1, 10**9, 86_400)],
)
def test_webhook_follows_its_schedule_and_the_receivers_wish(
    tries: int, retry_after_s: int | None, delay_s: float | None
) -> None:
    assert next_delivery_delay_s(tries, (5, 300), retry_after_s) == delay_s
