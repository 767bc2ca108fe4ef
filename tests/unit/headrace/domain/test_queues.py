"""The queue that a job wants."""

import pytest

from headrace.domain.queues import Lane, Overflow, wanted_queue


@pytest.mark.parametrize(
    ("pool", "overflow", "wanted"),
    [
        ("chat", Overflow.ALLOW, "chat.low"),
        ("chat", Overflow.NEVER, "chat.low"),
        ("chat", Overflow.ONLY, "overflow.low"),
        ("mini", Overflow.ALLOW, "overflow.low"),
    ],
)
def test_a_job_wants_its_pools_queue_unless_only_the_paid_api_may_answer_it(
    pool: str, overflow: Overflow, wanted: str
) -> None:
    assert wanted_queue(pool, Lane.LOW, overflow, paid_pools=("mini",)) == wanted
