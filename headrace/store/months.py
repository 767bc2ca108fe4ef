"""Months: the partitions of the tables in `BY_MONTH`. A job's month is that of the time in its id.

Postgres is the record of the months: their bounds are those of the partitions of `jobs`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.domain.ids import month_start, oldest_id, time_of
from headrace.domain.states import JobState
from headrace.tables import BY_MONTH

#: The months after the present one that are made ahead. Without its month a job is refused.
AHEAD = 2
#: The tables whose rows leave with their job. The ledger stays: the bill must still add up.
LEAVING = ("job_texts", "attempts", "deliveries", "jobs")
#: Tables whose key is `id`. Where that is not the job's id, each partition has a key of its own.
_OWN_KEYS = frozenset({"jobs", "ledger", "deliveries"})
#: The states of a job that has not ended.
OPEN = tuple(state for state in JobState if not state.is_terminal)
#: The tables whose partitions refer to that of `jobs` of their month.
_OF_JOBS = frozenset({"job_texts", "attempts", "deliveries"})

#: Less than Postgres's `deadlock_timeout`, so that this transaction gives way before it makes another one fail.
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '500ms'"
_MONTHS = sa.text(r"""
    SELECT c.relname AS name, substring(pg_get_expr(c.relpartbound, c.oid) FROM $$TO \('(.*)'\)$$) AS until
    FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'jobs'::regclass
""")
#: The rules by which attached partitions refer to a month of `jobs`.
_REFERENCES = sa.text("""
    SELECT conrelid::regclass::text AS name, conname AS rule
    FROM pg_constraint JOIN pg_inherits ON inhrelid = conrelid WHERE confrelid = to_regclass(:of) AND contype = 'f'
""")


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of each table.

    Attributes:
        name: what its partitions' names end with, such as `2027_01`.
        until: the smallest id after it.
    """

    name: str
    until: UUID


def found(db: Connection) -> list[Partition]:
    """The attached months, oldest first."""
    months = (Partition(row.name.removeprefix("jobs_"), UUID(row.until)) for row in db.execute(_MONTHS))
    return sorted(months, key=lambda month: month.until)


def make(db: Connection, at: datetime, since: datetime | None = None) -> list[str]:
    """Make the missing months up to `AHEAD` after the time `at`. Returns their names.

    Readers and writers go on: only the attaching itself takes a lock, on tables that are new or small.
    Args: since: a time of the first month of all; by default, where there is none, that before the time `at`. A host
        whose clock is behind makes ids of that month.
    """
    present = found(db)
    begins = month_start(since or (time_of(present[-1].until) if present else at), 0 if since or present else -1)
    made = []
    while begins < month_start(at, AHEAD + 1):
        ends = month_start(begins, 1)
        if oldest_id(ends) not in {month.until for month in present}:
            db.exec_driver_sql("; ".join((_LOCK_TIMEOUT, *_making(begins, ends))))
            made.append(_name(begins))
        begins = ends
    return made


def _making(since: datetime, until: datetime) -> Iterator[str]:
    name = _name(since)
    for table in BY_MONTH:
        like = "INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMPRESSION"
        yield f"CREATE TABLE {table}_{name} (LIKE {table} {like})"
        if table in _OWN_KEYS:
            yield f"ALTER TABLE {table}_{name} ADD PRIMARY KEY (id)"
        if table in _OF_JOBS:
            yield f"ALTER TABLE {table}_{name} ADD FOREIGN KEY (job_id) REFERENCES jobs_{name} ON DELETE CASCADE"
    # Attached last: the default partitions are locked until the commit.
    for table in BY_MONTH:
        bounds = f"FROM ('{oldest_id(since)}') TO ('{oldest_id(until)}')"
        yield f"ALTER TABLE {table} ATTACH PARTITION {table}_{name} FOR VALUES {bounds}"


def oldest(db: Connection, at: datetime, keep_months: int) -> Partition | None:
    """The oldest month, if it ended at least `keep_months` months before the present one began."""
    month = found(db)[0]
    return month if month.until <= oldest_id(month_start(at, -keep_months)) else None


def detach(db: Connection, month: Partition) -> str | None:
    """Detach the oldest month of all tables but the ledger, unless something there is still open.

    Its tables stay in the database, without a part in any query. A text there could not be erased any more, so a month
    with texts stays.

    Returns: what is still open; None if the month is detached.
    """
    # The tables before their partitions, as every query locks them.
    db.exec_driver_sql(f"{_LOCK_TIMEOUT}; LOCK TABLE ONLY jobs, ONLY job_texts, ONLY attempts, ONLY deliveries")
    if open_rows := _open_in(db, month):
        return open_rows
    db.exec_driver_sql("; ".join(f"ALTER TABLE {table} DETACH PARTITION {table}_{month.name}" for table in LEAVING))
    for row in db.execute(_REFERENCES, {"of": f"jobs_{month.name}"}).all():
        db.exec_driver_sql(f"ALTER TABLE {row.name} DROP CONSTRAINT {row.rule}")
    db.execute(sa.text("DELETE FROM job_retries WHERE job_id < :until"), {"until": month.until})
    return None


def _open_in(db: Connection, month: Partition) -> str | None:
    # One query for each state, as each has a partial index.
    of_state = (f"EXISTS (SELECT FROM jobs_{month.name} WHERE state = '{state}')" for state in OPEN)
    if db.scalar(sa.text(f"SELECT {' OR '.join(of_state)}")):
        return "jobs that have not ended"
    pending = sa.text("SELECT EXISTS (SELECT FROM deliveries WHERE state = 'pending' AND job_id < :until)")
    if db.scalar(pending, {"until": month.until}):
        return "webhooks that are not delivered"
    if db.scalar(sa.text(f"SELECT EXISTS (SELECT FROM job_texts_{month.name})")):
        return "texts that are not erased"
    return None


def _name(since: datetime) -> str:
    return f"{since:%Y_%m}"
