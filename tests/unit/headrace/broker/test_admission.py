"""What a refusal says of the queue that has no place."""

from typing import Any

import pytest

from headrace.domain.limits import RatesLeft
from headrace.domain.places import Refusal


@pytest.mark.parametrize(
    ("reason", "unit", "waiting"),
    [
        ("depth", "jobs", 5),
        ("share", "jobs", 5),
        ("tokens", "tokens", 900),
        ("token_share", "tokens", 900),
        ("wait", "tokens", 300),
    ],
)
def test_what_waits_is_told_as_the_bound_that_refused_counts_it(reason: Any, unit: str, waiting: int) -> None:
    refusal = Refusal(reason, depth=5, backlog_tokens=900, expected_tokens=300, rates_left=RatesLeft(None, None))
    assert (refusal.unit, refusal.waiting) == (unit, waiting)
