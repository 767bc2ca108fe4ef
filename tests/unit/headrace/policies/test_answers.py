"""How long an answer is expected to be, by what was learned and by what it may be."""

import pytest

from headrace.domain.queues import Lane
from headrace.policies.answers import BOUNDS, ExpectedOutput, from_fields, to_fields, together


def of(answers: int, length: float) -> ExpectedOutput:
    """Learned from answers that all had this length."""
    return ExpectedOutput(answers, tuple(min(bound, length) for bound in BOUNDS))


@pytest.mark.parametrize(("max_tokens", "expected"), [(1, 1), (16, 16), (50, 24), (256, 24), (8192, 24), (10**6, 24)])
def test_an_answer_is_expected_to_be_as_long_as_others_were_and_never_above_its_maximum(
    max_tokens: int, expected: float
) -> None:
    assert of(10**9, 24).within(max_tokens) == pytest.approx(expected, rel=0.01)


def test_between_two_bounds_the_expected_length_rises_steadily() -> None:
    grows = ExpectedOutput(10**9, tuple(bound / 2 for bound in BOUNDS))
    assert [grows.within(most) for most in (100, 101, 150)] == pytest.approx([50, 50.5, 75], rel=0.01)


def test_few_answers_say_little() -> None:
    assert of(1, 24).within(256) == pytest.approx((24 + 256) / 2)
    assert of(100, 24).within(256) == pytest.approx(26.3, abs=0.1)


def test_the_workers_of_a_pool_count_by_how_many_answers_they_have_seen() -> None:
    both = together([{Lane.LOW: of(300, 20)}, {Lane.LOW: of(100, 60), Lane.HIGH: of(5, 8)}])
    assert both[Lane.LOW].answers == 400
    assert both[Lane.LOW].tokens[-1] == pytest.approx(30)
    assert both[Lane.HIGH] == of(5, 8)
    assert together([]) == {}


def test_what_was_learned_is_read_as_it_was_written() -> None:
    outputs = {Lane.NORMAL: of(7, 24)}
    assert from_fields(to_fields(outputs)) == outputs
    assert from_fields({"low": [3, 1.0, 2.0]}) == {}, "another version's bounds say nothing here"
