"""Ids of jobs as a host makes them at another time."""

from datetime import UTC, datetime
from uuid import UUID

from headrace.domain.ids import new_id, oldest_id


def id_at(at: datetime) -> UUID:
    """A new id whose time is this one."""
    return UUID(int=oldest_id(at.astimezone(UTC)).int | (new_id().int & ((1 << 80) - 1)))
