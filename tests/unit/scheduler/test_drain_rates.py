from datetime import UTC, datetime, timedelta

import pytest

from headrace.store.observations import QueueSample
from scheduler.observe import drain_rates

START = datetime(2026, 1, 1, tzinfo=UTC)


def samples(*rows: tuple[int, int]) -> list[QueueSample]:
    """Samples of one queue, 5 s apart, from (depth, started since the one before)."""
    return [
        QueueSample("q", START + timedelta(seconds=5 * i), depth, 0, 0, 0, started, 0, 0, 0)
        for i, (depth, started) in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("rows", "rate"),
    [
        ([], None),
        ([(3, 10)], None),
        ([(3, 0), (3, 10)], 2.0),
        ([(0, 0), (3, 10)], None),
        ([(3, 0), (0, 10)], None),
        ([(3, 0), (3, 10), (0, 4), (0, 1), (9, 1), (9, 20)], 3.0),
        ([(3, 0), (3, 0)], None),
    ],
)
def test_rate_counts_only_the_time_the_queue_was_backed_up(rows: list[tuple[int, int]], rate: float | None) -> None:
    assert drain_rates(samples(*rows)).get("q") == rate
