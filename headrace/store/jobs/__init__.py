"""Jobs: find, list and cancel them, and the sweeps' statements for jobs that no worker moves on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Row, Select

from headrace.domain.answers import Choice, StoredLogprobs
from headrace.domain.fleet import NO_WORKER
from headrace.domain.ids import show_id
from headrace.domain.jobs import Job
from headrace.domain.prompts.tools import ToolCall, Tools
from headrace.domain.queues import OVERFLOW, Lane, Overflow, Route, Ticket
from headrace.domain.states import TERMINAL, JobState
from headrace.errors import JobHeld, NotFound, PayloadUnreadable
from headrace.policies.retries import CONFINED
from headrace.store import SMALLEST_WRITE, Store
from headrace.store.bad_rows import BadRows
from headrace.store.sql import Statement, is_one_of
from headrace.store.states import (
    FINISH_IS_LATE,
    IS_LEADER_ENDED,
    IS_OVER,
    IS_RUNNING,
    IS_UNSTARTED,
    IS_WAITING,
    SPELLED,
    START_IS_LATE,
    UNSTARTED,
    transition,
)
from headrace.tables import jobs, workers

#: The kinds of ledger entry that charge a job's owner.
BILLED = ("compute", "api", "cache")
#: Literals, as in `store.states`, so that a generic plan can use the ledger's partial index.
SPELLED_BILLED = [sa.literal(kind, literal_execute=True) for kind in BILLED]


def job_of(row: Any) -> Job:
    """The job in a row of `sql/find.sql`. Raises: PayloadUnreadable."""
    values = {field.name: getattr(row, field.name) for field in fields(Job)}
    values |= {"state": JobState(row.state), "lane": Lane(row.lane)}
    values |= {"route": Route(row.route), "overflow": Overflow(row.overflow)}
    values["logprobs"] = None if row.logprobs is None else StoredLogprobs(row.logprobs)
    values["n"] = row.n or 1
    try:
        values["tool_calls"] = tuple(map(ToolCall.of, row.tool_calls or ()))
        values["tools"] = None if row.tools is None else Tools.of(row.tools)
        values["others"] = None if row.others is None else tuple(map(Choice.of, row.others))
    except (AttributeError, KeyError, TypeError) as error:
        what = f"The answer of '{show_id(row.id)}' is malformed, or a newer release wrote it"
        raise PayloadUnreadable(f"{what} ({type(error).__name__}).") from None
    return Job(**values)


_FIND, _FIND_FOLLOWING = Statement("find"), Statement("find_following")


def not_found(job_id: UUID) -> NotFound:
    """The error for an unknown job id, or for another app's job."""
    return NotFound(f"No job with id '{show_id(job_id)}'.")


def find(db: Connection, app_id: UUID, job_id: UUID) -> Job:
    """One job of this app. Raises: NotFound, also for another app's job and for an erased one."""
    found = find_all(db, [(app_id, job_id)])
    if not found:
        raise not_found(job_id)
    return found[app_id, job_id]


def find_all(
    where: Connection | Store,
    asked: Iterable[tuple[UUID, UUID]],
    *,
    is_listed: bool = False,
    has_tools: bool = True,
) -> dict[tuple[UUID, UUID], Job]:
    """The jobs that exist, matched by (app id, job id).

    Jobs that wait for another's answer are read once more, with a look at that job, of any month.

    Args:
        where: a transaction; or a store, where the read is one by itself.
        is_listed: leaves out what can have megabytes for each job, and jobs that cannot be read.
        has_tools: False leaves out the tools of requests.

    Raises: PayloadUnreadable: one of them, unless `is_listed`.
    """
    parts = {"is_listed": is_listed, "has_tools": has_tools}
    rows = _read(where, _FIND, asked, parts)
    following = [key for key, row in rows.items() if row.state == JobState.WAITING and row.served_by_job]
    for key in following:
        del rows[key]
    rows |= _read(where, _FIND_FOLLOWING, following, parts)
    if not is_listed:
        return {key: job_of(row) for key, row in rows.items()}
    listed = BadRows("list").readable(list(rows.values()), job_of, len(rows))
    return {(job.app_id, job.id): job for job in listed}


def _read(
    where: Connection | Store, how: Statement, asked: Iterable[tuple[UUID, UUID]], parts: Mapping[str, bool]
) -> dict[tuple[UUID, UUID], Row[Any]]:
    given = [{"app_id": app_id, "job_id": job_id} for app_id, job_id in set(asked)]
    return {(row.app_id, row.id): row for row in how.run_by_month(where, given, **parts)}


#: The most rows that one sweep moves in one transaction, so that a backlog cannot hold locks for long.
SWEEP_ROWS = 1000
#: The most running jobs that one `rescue` takes: it locks rows that their workers, if still alive, want to write.
RESCUE_ROWS = 100

#: How often a page of a list is read while jobs of it are being erased.
PAGE_READS = 3
#: For the ids of a page. Where Postgres expects few jobs of an app, as while its statistics do not know the app, it
#: would read all of them, and sort them. And it would plan each page anew, which takes longer than to read it.
IN_ORDER = "SELECT set_config('enable_sort', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true)"

_EXPIRED = {"error_code": "expired", "error_message": "It could not start within its max_wait."}
_HELD_TOO_LONG = {
    "error_code": JobHeld.code,
    "error_message": "It could not start within its max_wait: prompts of its app have killed engines of its pool, "
    "where its jobs run one at a time for now.",
}
_OVERDUE = {"error_code": "deadline_exceeded", "error_message": "Its deadline passed before it could finish."}


def ended_among(db: Connection, job_ids: Sequence[UUID]) -> list[UUID]:
    """The given jobs that have ended, or will at their next read: one cheap query for many readers.

    Jobs without a row are among them: a failover to a standby that never had them has lost them.
    """
    wanted = is_one_of(jobs.c.id, job_ids)
    is_news = sa.or_(jobs.c.state.in_(TERMINAL), IS_OVER, IS_LEADER_ENDED)
    going_on = set(db.scalars(sa.select(jobs.c.id).where(wanted, sa.not_(is_news))))
    return [job_id for job_id in job_ids if job_id not in going_on]


def newest(
    db: Connection, app_id: UUID, *, state: JobState | None = None, after: UUID | None = None, limit: int = 20
) -> list[Job]:
    """The app's jobs older than `after`, newest first, without log probabilities and reasoning.

    First their ids, from one index of each month, then the rest by these. The caller's transaction must sort nothing
    afterwards.
    """
    db.exec_driver_sql(IN_ORDER)
    for _ in range(PAGE_READS):
        job_ids = db.scalars(page(app_id, state, after, limit)).all()
        found = find_all(db, ((app_id, job_id) for job_id in job_ids), is_listed=True)
        # A job that was erased between the two reads would make this page look like the last one.
        if len(found) == len(job_ids):
            break
    return [found[app_id, job_id] for job_id in job_ids if (app_id, job_id) in found]


def page(app_id: UUID, state: JobState | None, after: UUID | None, limit: int) -> Select[Any]:
    """Select the ids of such a page."""
    of_app = sa.select(jobs.c.id).where(jobs.c.app_id == app_id, jobs.c.erased_at.is_(None))
    if state is not None:
        of_app = of_app.where(jobs.c.state == SPELLED[state])
    if after is not None:
        of_app = of_app.where(jobs.c.id < after)
    return of_app.order_by(jobs.c.id.desc()).limit(limit)


def count_delayed(db: Connection, app_id: UUID) -> int:
    """How many of the app's jobs wait for the time before which their callers want no start."""
    these = (IS_WAITING, jobs.c.not_before > sa.func.now(), jobs.c.app_id == app_id, jobs.c.start_after.is_not(None))
    return db.scalar(sa.select(sa.func.count()).where(*these)) or 0


def cancel(db: Connection, app_id: UUID | None, job_id: UUID) -> Job:
    """Cancel a job: at once while it waits, by request to its worker while it runs. An ended job stays as it is.

    Safe to repeat. Args: app_id: the app that must own the job; None for an operator. Raises: NotFound.
    """
    mine = [jobs.c.id == job_id] + ([jobs.c.app_id == app_id] if app_id else [])
    # Locked first: otherwise both updates would miss a job that its worker puts back between them.
    owner = db.scalar(sa.select(jobs.c.app_id).where(*mine).with_for_update())
    if owner is None:
        raise not_found(job_id)
    if not transition(db, UNSTARTED, JobState.CANCELLED, *mine):
        requested = sa.update(jobs).where(*mine, jobs.c.state == JobState.RUNNING, jobs.c.cancel_requested_at.is_(None))
        db.execute(requested.values(cancel_requested_at=sa.func.now()))
    return find(db, owner, job_id)


def late(db: Connection, *conditions: ColumnElement[bool]) -> list[Row[Any]]:
    """Lock and return the ids of at most `SWEEP_ROWS` unclaimed jobs whose time has passed, oldest first."""
    found = list(db.execute(_first(jobs.c.start_by, SWEEP_ROWS, IS_UNSTARTED, START_IS_LATE, *conditions)))
    by_finish = (IS_UNSTARTED, FINISH_IS_LATE, sa.not_(START_IS_LATE), *conditions)
    return found + list(db.execute(_first(jobs.c.finish_by, SWEEP_ROWS - len(found), *by_finish)))


def expire(db: Connection, job_ids: Sequence[UUID]) -> list[Ticket]:
    """End those of the jobs that are unclaimed and whose time has passed."""
    these = is_one_of(jobs.c.id, job_ids)
    was_held = jobs.c.route_reason.startswith(CONFINED, autoescape=True)
    why = {name: sa.case((was_held, _HELD_TOO_LONG[name]), else_=text) for name, text in _EXPIRED.items()}
    expired = transition(db, UNSTARTED, JobState.EXPIRED, START_IS_LATE, these, by_key=True, **why)
    overdue = transition(db, UNSTARTED, JobState.FAILED, FINISH_IS_LATE, these, by_key=True, **_OVERDUE)
    return [Ticket.of(row) for row in (*expired, *overdue)]


def _first(by: sa.Column[Any], most: int, *conditions: ColumnElement[bool]) -> Select[Any]:
    """Lock and select the first jobs, by this column, that meet the conditions and are not locked."""
    return sa.select(jobs.c.id).where(*conditions).order_by(by).limit(most).with_for_update(skip_locked=True)


def enqueue_due(db: Connection) -> list[Ticket]:
    """Move at most `SWEEP_ROWS` due jobs from `waiting` to `queued`. The caller must push their messages.

    A job whose payload was too new for a worker waits until a worker that reads it takes jobs.
    """
    is_due = (jobs.c.not_before <= sa.func.now(), sa.or_(jobs.c.needs_version.is_(None), _has_reader()))
    due = _first(jobs.c.not_before, SWEEP_ROWS, IS_WAITING, *is_due)
    rows = transition(
        db,
        [JobState.WAITING],
        JobState.QUEUED,
        # An array: with a subquery, a plan could scan the whole table.
        jobs.c.id == sa.any_(sa.func.array(due.correlate(None).scalar_subquery())),
        enqueue_no=jobs.c.enqueue_no + 1,
        queued_at=sa.func.now(),
        not_before=None,
    )
    return [Ticket.of(row) for row in rows]


def _has_reader() -> ColumnElement[bool]:
    """Whether a live worker of the job's queue reads its payload."""
    pool = sa.case((jobs.c.route == Route.OVERFLOW, OVERFLOW), else_=jobs.c.pool)
    reads = (workers.c.pool == pool, workers.c.payload_version >= jobs.c.needs_version)
    return sa.exists().where(workers.c.lease_until > sa.func.now(), workers.c.ready, *reads).correlate(jobs)


def orphans(db: Connection, *conditions: ColumnElement[bool]) -> Sequence[Row[Any]]:
    """Lock and return running jobs whose worker's lease has expired, or that their worker has disowned."""
    dead = sa.select(workers.c.id).where(workers.c.lease_until < sa.func.now())
    statement = (
        sa.select(jobs)
        .where(IS_RUNNING, sa.or_(jobs.c.worker_id.in_(dead), jobs.c.worker_id == NO_WORKER), *conditions)
        .limit(RESCUE_ROWS)
        .with_for_update(skip_locked=True)
    )
    return db.execute(statement).all()


def queued_numbers(db: Connection, job_ids: Sequence[UUID]) -> dict[UUID, int]:
    """The `enqueue_no` of each given job that is `queued` now. What it says is on disk once `db` has committed."""
    these = is_one_of(jobs.c.id, job_ids)
    statement = sa.select(jobs.c.id, jobs.c.enqueue_no).where(these, jobs.c.state + "" == JobState.QUEUED)
    numbers = {row.id: row.enqueue_no for row in db.execute(statement)}
    # A claim does not wait for the disk.
    db.exec_driver_sql(SMALLEST_WRITE)
    return numbers
