"""Times as operators type them."""

import re
from datetime import UTC, datetime, timedelta

_AGE = re.compile("([0-9]{1,7})([smhd])")
_AGE_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
#: The earliest time that a job's id can hold.
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read(text: str, now: datetime) -> datetime:
    """The time of an age such as `2h`, or of a date with a time, in UTC unless it has an offset. Raises: ValueError."""
    at: datetime | None
    try:
        if age := _AGE.fullmatch(text):
            at = now - timedelta(**{_AGE_UNITS[age[2]]: int(age[1])})
        else:
            at = datetime.fromisoformat(text)
            at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        at = None
    if at is None or at < _EPOCH:
        raise ValueError(f"'{text[:40]}' is neither an age, such as 2h or 7d, nor a time like 2026-03-01T08:00.")
    return at
