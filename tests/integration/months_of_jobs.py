"""Ids of jobs as a host makes them at another time, the months of such jobs, and the indexes of months."""

import re
from datetime import UTC, datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.domain.ids import new_id, oldest_id, time_of
from headrace.store import clock, months


def id_at(at: datetime) -> UUID:
    """A new id whose time is this one."""
    return UUID(int=oldest_id(at.astimezone(UTC)).int | (new_id().int & ((1 << 80) - 1)))


def make_past_months(db: Connection, job_id: UUID) -> None:
    """Make the months since this id's, as a system has them whose first job it was."""
    now = clock.now(db)
    if time_of(job_id) < now:
        months.make(db, now, time_of(job_id))


def with_whole_indexes(db: Connection, text: str) -> str:
    """The text, with the name of the whole table's index in place of that of a month's."""
    parts = (
        "SELECT inhrelid::regclass::text, inhparent::regclass::text FROM pg_inherits"
        " JOIN pg_class c ON c.oid = inhparent WHERE relkind = 'I'"
    )
    found = {row[0]: row[1] for row in db.execute(sa.text(parts))}
    return re.sub(r"\w+", lambda word: found.get(word[0], word[0]), text)
