"""The time of a job, and its month, from its id."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from headrace.domain.ids import month_of, month_start, new_id, oldest_id

DECEMBER, JANUARY = datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("at", "month"),
    [
        (DECEMBER, DECEMBER),
        (DECEMBER - timedelta(milliseconds=1), datetime(2026, 11, 1, tzinfo=UTC)),
        (JANUARY - timedelta(milliseconds=1), DECEMBER),
        (JANUARY, JANUARY),
    ],
)
def test_an_id_is_between_the_bounds_of_its_month(at: datetime, month: datetime) -> None:
    job_id = UUID(int=oldest_id(at).int + 5)

    since, until = month_of(job_id)

    assert (since, until) == (oldest_id(month), oldest_id(month_start(month, 1)))
    assert since <= job_id < until


def test_the_oldest_id_of_a_time_is_below_every_id_that_is_made_from_then_on() -> None:
    now = datetime.now(UTC)
    before, after = now - timedelta(seconds=60), now + timedelta(seconds=60)
    assert oldest_id(before) < oldest_id(now) < oldest_id(now + timedelta(milliseconds=2))
    assert oldest_id(before) < new_id() < oldest_id(after)
