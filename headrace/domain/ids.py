"""Ids: UUIDv7 internally, and the prefixes that the API puts before a job's id."""

import re
from datetime import UTC, datetime
from functools import lru_cache
from uuid import UUID

from uuid_utils.compat import uuid7

from headrace.errors import NotFound

_HEX_ID = re.compile("[0-9a-fA-F]{32}")
_HOUR_MS = 3_600_000

#: The public prefixes of a job's UUID, one for each API that returns it.
ID_PREFIXES = ("job_", "resp_", "chatcmpl-", "cmpl-")


def new_id() -> UUID:
    """A UUIDv7: sorts by creation time, so that an index on it stays compact."""
    return uuid7()


def oldest_id(at: datetime) -> UUID:
    """The smallest UUIDv7 of this millisecond: its first 48 bits are Unix milliseconds (RFC 9562)."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


def time_of(job_id: UUID) -> datetime:
    """When this UUIDv7 was created, to the millisecond."""
    return datetime.fromtimestamp((job_id.int >> 80) / 1000, UTC)


def month_start(at: datetime, later: int = 0) -> datetime:
    """The start of the month of UTC that is `later` months after that of the time `at`."""
    at = at.astimezone(UTC)
    months = at.year * 12 + at.month - 1 + later
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)


def month_of(job_id: UUID) -> tuple[UUID, UUID]:
    """The smallest ids of the month in which this UUIDv7 was created, and of the month after it. Months are of UTC.

    Another UUID may lie beyond the calendar; then both bounds are those of all ids.
    """
    return _month_with_hour((job_id.int >> 80) // _HOUR_MS)


@lru_cache(maxsize=1024)
def _month_with_hour(hour: int) -> tuple[UUID, UUID]:
    try:
        at = datetime.fromtimestamp(hour * _HOUR_MS // 1000, UTC)
        return oldest_id(month_start(at)), oldest_id(month_start(at, 1))
    except (ValueError, OverflowError):
        return UUID(int=0), UUID(int=2**128 - 1)


def show_id(job_id: UUID, prefix: str = "job_") -> str:
    """The public spelling, e.g. `job_0197…`: prefix and 32 hex digits."""
    return f"{prefix}{job_id.hex}"


def parse_id(text: str) -> UUID:
    """The UUID in a public id. Raises: NotFound for a malformed id, since no such job exists."""
    for prefix in ID_PREFIXES:
        digits = text.removeprefix(prefix)
        # `UUID` also accepts underscores and the digits of other scripts.
        if digits != text and _HEX_ID.fullmatch(digits):
            return UUID(hex=digits)
    raise NotFound(f"No job with id '{text[:80]}'.")
