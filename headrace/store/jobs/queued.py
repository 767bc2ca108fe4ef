"""Jobs that are `queued`, in the order in which they were queued: `publish_due` reads each once, queue by queue.

It keeps its position as a mark in Redis, so that a Redis that loses messages also loses the mark. A Postgres that has
lost its last transactions is on another timeline, for which the mark does not count.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row
from sqlalchemy.dialects.postgresql import ARRAY

from headrace.domain.queues import Ticket
from headrace.store.jobs import ticket_of
from headrace.store.jobs.conditions import IS_QUEUED
from headrace.store.sql import Statement
from headrace.tables import jobs

#: The most jobs of each queue in one page.
PAGE_ROWS = 1000
#: Transactions open for longer are ignored: those of a migration, or of a process that hangs.
LONGEST = timedelta(minutes=1)
#: The position before every job.
_BEGINNING = f"-infinity {UUID(int=0)}"

_PAGES = Statement("queued_pages")


@dataclass(frozen=True, slots=True)
class Page:
    """Jobs of one queue that were queued after a mark; `mark` is that of the last job.

    A mark is a timeline, a time and a job's id.
    """

    tickets: tuple[Ticket, ...]
    mark: str

    @property
    def is_full(self) -> bool:
        """Whether there may be more."""
        return len(self.tickets) >= PAGE_ROWS


def horizon(db: Connection, grace_s: float) -> datetime:
    """The time up to which all queued jobs are visible: `grace_s` ago, or the start of Headrace's oldest transaction.

    A transaction dates its rows by its start, but they become visible only when it ends. Call it in a statement before
    the one that reads the jobs.
    """
    seen: datetime = db.execute(_HORIZON, {"grace": timedelta(seconds=grace_s), "longest": LONGEST}).scalar_one()
    return seen


def timeline(db: Connection) -> str:
    """This Postgres's line of history: the cluster's identifier and its timeline.

    It changes when a standby is promoted and when a backup is restored. Both may have lost transactions, such as the
    claim of a job that the books have forgotten.
    """
    return str(db.execute(_TIMELINE).scalar_one())


def ahead_of(db: Connection, queue: str, queued_at: datetime, job_id: UUID) -> int:
    """How many queued jobs of this queue were queued before this one."""
    before = sa.tuple_(jobs.c.queued_at, jobs.c.id) < sa.tuple_(sa.literal(queued_at), sa.literal(job_id, sa.Uuid))
    counted: int = db.execute(sa.select(sa.func.count()).where(IS_QUEUED, jobs.c.queue == queue, before)).scalar_one()
    return counted


def pages(db: Connection, marks: Mapping[str, str], until: datetime) -> dict[str, Page]:
    """The next page of each queue: its jobs after the mark, queued before `until`, in order. A queue without is absent.

    Args:
        marks: by queue, the mark of an earlier page. One that is empty, or of another timeline, is before every job.
    """
    here = timeline(db)
    after = [_after(mark, here) for mark in marks.values()]
    given = {"queues": list(marks), "times": [at for at, _ in after], "ids": [UUID(job) for _, job in after]}
    rows = _PAGES.run(db, **given, until=until, most=PAGE_ROWS)
    return {queue: _page(list(group), here) for queue, group in groupby(rows, key=lambda row: str(row.queue))}


def _after(mark: str, here: str) -> tuple[str, str]:
    """The time and the job of a mark."""
    of, _, position = mark.partition(" ")
    at, _, job = (position if of == here else _BEGINNING).rpartition(" ")
    return at, job


def _page(rows: list[Row[Any]], here: str) -> Page:
    last = rows[-1]
    return Page(tuple(map(ticket_of, rows)), f"{here} {last.queued_at.isoformat()} {last.id}")


def tickets(db: Connection, stays: Collection[tuple[UUID, int]]) -> list[Ticket]:
    """The tickets of those stays (job and `enqueue_no`) that are still current, oldest first."""
    these = jobs.c.id == sa.any_(sa.cast([job_id for job_id, _ in stays], ARRAY(sa.Uuid)))
    rows = db.execute(sa.select(jobs).where(these, IS_QUEUED).order_by(jobs.c.queued_at, jobs.c.id))
    wanted = set(stays)
    return [ticket_of(row) for row in rows if (row.id, row.enqueue_no) in wanted]


# The control file knows a new timeline from the first checkpoint on, which a promotion asks for at once.
_TIMELINE = sa.text("""
    SELECT concat_ws('.', (pg_control_system()).system_identifier, (pg_control_checkpoint()).timeline_id)
""")
_HORIZON = sa.text("""
    SELECT least(now() - :grace, min(xact_start)) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'headrace%' AND pid <> pg_backend_pid()
          AND xact_start > now() - :longest
""")
