"""Times as operators type them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from headrace.domain import operators

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("2h", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-03-01T08:00", datetime(2026, 3, 1, 8, tzinfo=UTC)),
        ("2026-03-01T08:00+02:00", datetime(2026, 3, 1, 8, tzinfo=timezone(timedelta(hours=2)))),
    ],
)
def test_an_age_and_a_time_are_read(text: str, at: datetime) -> None:
    assert operators.read_time(text, NOW) == at


@pytest.mark.parametrize(
    "text", ["", "2 h", "-2h", "2w", "9999999d", "1969-12-31T00:00", "0001-01-01T00:00+14:00", "soon"]
)
def test_anything_else_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="neither an age"):
        operators.read_time(text, NOW)
