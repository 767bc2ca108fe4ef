"""Jobs that are `queued`: `publish_due` reads each once, and late ones spill to the paid API.

`publish_due` goes queue by queue, in the order in which jobs were queued. It keeps its position as a mark in Redis, so
that a Redis that loses messages also loses the mark. A Postgres that has lost its last transactions is on another
timeline, for which the mark does not count.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Row

from headrace.domain.apps import AppLimits
from headrace.domain.jobs import LateJob
from headrace.domain.prompts.payloads import read_payload
from headrace.domain.queues import OVERFLOW, Overflow, Route, Ticket, queue_name
from headrace.domain.states import JobState
from headrace.store import SMALLEST_WRITE, Store
from headrace.store.jobs.confinements import IS_HELD
from headrace.store.sql import Statement, is_one_of
from headrace.store.states import IS_QUEUED, IS_UNSTARTED, transition
from headrace.tables import apps, job_texts, jobs

#: The most jobs of each queue in one page.
PAGE_ROWS = 1000
#: Transactions open for longer are ignored: those of a migration, or of a process that hangs.
LONGEST = timedelta(minutes=1)
#: The position before every job.
_BEGINNING = f"-infinity {UUID(int=0)}"

_PAGES, _OVER = map(Statement, ("queued_pages", "over"))

#: A stay of a job in a queue: the job, and the stay's `enqueue_no`.
Stay = tuple[UUID, int]


@dataclass(frozen=True, slots=True)
class QueuedPage:
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


def pages(db: Connection, marks: Mapping[str, str], until: datetime) -> dict[str, QueuedPage]:
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


def _page(rows: list[Row[Any]], here: str) -> QueuedPage:
    last = rows[-1]
    return QueuedPage(tuple(map(Ticket.of, rows)), f"{here} {last.queued_at.isoformat()} {last.id}")


def over(store: Store, stays: Collection[Stay]) -> list[Stay]:
    """The stays that are over: their jobs were claimed, or have ended. It returns once that is on disk.

    The others wait. A claim that a crash of Postgres has forgotten is among them. Raises: StoreUnavailable.
    """
    given = [{"job_id": job_id, "enqueue_no": enqueue_no} for job_id, enqueue_no in stays]
    return [(row.job_id, row.enqueue_no) for row in _OVER.run_by_month(store, given)]


def renumber(db: Connection, stays: Collection[Stay]) -> list[Ticket]:
    """Give queued jobs a new `enqueue_no`, so that no end and no piece of a claim that Postgres has forgotten counts.

    Returns: the tickets of their new messages, oldest first; none of a job that does not wait any more.
    """
    numbers = dict(sorted(stays))
    waiting = sa.select(jobs.c.id, jobs.c.enqueue_no).where(is_one_of(jobs.c.id, numbers), IS_QUEUED).with_for_update()
    # One more: an earlier call has renumbered it, and its message was not pushed.
    these = [row.id for row in db.execute(waiting) if row.enqueue_no - numbers[row.id] in (0, 1)]
    raised = sa.update(jobs).where(is_one_of(jobs.c.id, these)).values(enqueue_no=jobs.c.enqueue_no + 1)
    rows = sorted(db.execute(raised.returning(jobs)), key=lambda row: (row.queued_at, row.id))
    # What is not returned must be on disk, as what is.
    db.exec_driver_sql(SMALLEST_WRITE)
    return [Ticket.of(row) for row in rows]


# The control file knows a new timeline from the first checkpoint on, which a promotion asks for at once.
_TIMELINE = sa.text("""
    SELECT concat_ws('.', (pg_control_system()).system_identifier, (pg_control_checkpoint()).timeline_id)
""")
_HORIZON = sa.text("""
    SELECT least(now() - :grace, min(xact_start)) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'headrace%' AND pid <> pg_backend_pid()
          AND xact_start > now() - :longest
""")


#: The `route_reason` of a job that the paid API was closed to, and that went back to its own pool, begins with this.
TURNED_AWAY = "from overflow: "


def about_to_be_late(
    db: Connection, within_s: float, limit: int, *conditions: ColumnElement[bool]
) -> Sequence[Row[Any]]:
    """Lock and return the jobs that wait for their pools and must start within `within_s` seconds, the earliest first.

    Left out are: jobs that started before, since `start_by` no longer applies to them; jobs in the first half of their
    `max_wait`; and jobs that the paid API was closed to within the last `within_s` seconds, since they would come back.
    Returns: rows for `late_job`.
    """
    came_back = sa.and_(
        jobs.c.route_reason.startswith(TURNED_AWAY, autoescape=True),
        jobs.c.queued_at > sa.func.now() - timedelta(seconds=within_s),
    )
    statement = (
        sa.select(jobs, job_texts.c.messages, job_texts.c.sampling, apps.c.name, apps.c.day_usd, apps.c.month_usd)
        .join(job_texts, job_texts.c.job_id == jobs.c.id)
        .join(apps, apps.c.id == jobs.c.app_id)
        .where(
            sa.or_(IS_QUEUED, IS_HELD),
            # Redundant, but it lets the planner use the index of unstarted jobs.
            IS_UNSTARTED,
            jobs.c.route == Route.POOL,
            jobs.c.overflow == Overflow.ALLOW,
            jobs.c.started_at.is_(None),
            jobs.c.start_by > sa.func.now(),
            jobs.c.start_by < sa.func.now() + timedelta(seconds=within_s),
            jobs.c.start_by - sa.func.now() < sa.func.now() - jobs.c.created_at,
            ~came_back,
            *conditions,
        )
        .order_by(jobs.c.start_by)
        .limit(limit)
        .with_for_update(of=jobs, skip_locked=True)
    )
    return db.execute(statement).all()


def late_job(row: Row[Any]) -> LateJob:
    """The job in a row of `late`. Raises: PayloadTooNew. PayloadUnreadable."""
    messages, sampling = read_payload(row.messages, row.sampling)
    return LateJob(
        ticket=Ticket.of(row),
        app=row.name,
        limits=AppLimits(day_usd=row.day_usd, month_usd=row.month_usd),
        model=row.model_requested,
        messages=messages,
        sampling=sampling,
        overflow=Overflow(row.overflow),
        max_cost_usd=row.max_cost_usd,
    )


def spill(db: Connection, tickets: Sequence[Ticket], reason: str) -> list[Ticket]:
    """Move these jobs to the paid API's queue of the same lane. The caller has locked them.

    Their `start_by` stays, and their old messages become stale. Returns: the tickets of their new messages.
    """
    # Held jobs wait in no queue.
    these = jobs.c.id.in_([ticket.job_id for ticket in tickets])
    transition(db, [JobState.WAITING], JobState.QUEUED, these, by_key=True, not_before=None)
    moved = []
    for ticket in tickets:
        queue, enqueue_no = queue_name(OVERFLOW, ticket.lane), ticket.enqueue_no + 1
        this = sa.update(jobs).where(jobs.c.id == ticket.job_id, jobs.c.enqueue_no == ticket.enqueue_no)
        values = {"queue": queue, "route": Route.OVERFLOW, "route_reason": reason, "queued_at": sa.func.now()}
        overflow_at = sa.func.coalesce(jobs.c.overflow_at, sa.func.now())
        db.execute(this.values(enqueue_no=enqueue_no, overflow_at=overflow_at, **values))
        moved.append(replace(ticket, queue=queue, enqueue_no=enqueue_no))
    return moved
