"""Jobs: read and cancel them, and the sweeps' statements for jobs that no worker moves on."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Row, ScalarSelect, Select
from sqlalchemy.dialects.postgresql import ARRAY

from headrace.domain.choices import Choice
from headrace.domain.fleet import NO_WORKER
from headrace.domain.ids import show_id
from headrace.domain.jobs import Job
from headrace.domain.logprobs import StoredLogprobs
from headrace.domain.prompts.tools import ToolCall, Tools
from headrace.domain.queues import Lane, Overflow, Route, Ticket
from headrace.domain.states import SUSPECT, TERMINAL, JobState
from headrace.errors import NotFound
from headrace.store.jobs.transitions import transition
from headrace.store.session import Store
from headrace.store.statement import Statement, rows_sent
from headrace.tables import attempts, job_texts, jobs, ledger, workers

#: The most rows that one sweep moves in one transaction, so that a backlog cannot hold locks for long.
SWEEP_ROWS = 1000
#: The most running jobs that one `rescue` takes: it locks rows that their workers, if still alive, want to write.
RESCUE_ROWS = 100

#: How often a page of a list is read while jobs of it are being erased.
PAGE_READS = 3
#: For the ids of a page. Where Postgres expects few jobs of an app, as while its statistics do not know the app, it
#: would read all of them, and sort them. And it would plan each page anew, which takes longer than to read it.
IN_ORDER = "SELECT set_config('enable_sort', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true)"

#: The kinds of ledger entry that charge a job's owner.
BILLED = ("compute", "api", "cache")

UNSTARTED = (JobState.WAITING, JobState.QUEUED)

#: Literals, as in the predicates of partial indexes: a generic plan with parameters could not use those indexes.
_SPELLED = {state: sa.literal(str(state), sa.Text, literal_execute=True) for state in JobState}
IS_QUEUED = jobs.c.state == _SPELLED[JobState.QUEUED]
IS_WAITING = jobs.c.state == _SPELLED[JobState.WAITING]
IS_RUNNING = jobs.c.state == _SPELLED[JobState.RUNNING]
IS_UNSTARTED = jobs.c.state.in_([_SPELLED[state] for state in UNSTARTED])

_LEADER = jobs.alias("leader")


def _of_leader(column: str) -> ScalarSelect[Any]:
    """A value of the job whose answer this one shares; NULL if it shares none.

    Not as a condition: so no partial index can be taken for it, which would be read whole once it has grown.
    """
    return sa.select(_LEADER.c[column]).where(_LEADER.c.id == jobs.c.served_by_job).correlate(jobs).scalar_subquery()


#: A job that shares an answer has started when the job that makes it has.
_START_IS_LATE = sa.and_(
    jobs.c.started_at.is_(None), jobs.c.start_by <= sa.func.now(), _of_leader("started_at").is_(None)
)
_IS_LEADER_ENDED = sa.and_(
    jobs.c.state == JobState.WAITING,
    jobs.c.served_by_job.is_not(None),
    sa.func.coalesce(_of_leader("state").in_(TERMINAL), sa.false()),
)
_FINISH_IS_LATE = sa.and_(jobs.c.finish_by.is_not(None), jobs.c.finish_by <= sa.func.now())
_EXPIRED = {"error_code": "expired", "error_message": "It could not start within its max_wait."}
_OVERDUE = {"error_code": "deadline_exceeded", "error_message": "Its deadline passed before it could finish."}
_IS_OVER = sa.and_(jobs.c.state.in_(UNSTARTED), sa.or_(_START_IS_LATE, _FINISH_IS_LATE))


def _job_of(row: Any) -> Job:
    """The job in a row of `_SELECT_JOB` or `_SELECT_LISTED`."""
    values = {field.name: getattr(row, field.name) for field in fields(Job)}
    values |= {"state": JobState(row.state), "lane": Lane(row.lane)}
    values |= {"route": Route(row.route), "overflow": Overflow(row.overflow)}
    values["tool_calls"] = tuple(map(ToolCall.of, row.tool_calls or ()))
    values["tools"] = None if row.tools is None else Tools.of(row.tools)
    values["logprobs"] = None if row.logprobs is None else StoredLogprobs(row.logprobs)
    values["n"] = row.n or 1
    values["others"] = None if row.others is None else tuple(map(Choice.of, row.others))
    return Job(**values)


#: Literals, as above, so that a generic plan can use the ledger's partial index.
_BILLED = [sa.literal(kind, literal_execute=True) for kind in BILLED]
_SELECT = (
    sa.select(
        *(jobs.c[field.name] for field in fields(Job) if field.name in jobs.c),
        attempts.c.engine,
        ledger.c.price_version,
        _IS_OVER.label("is_over"),
        _IS_LEADER_ENDED.label("is_leader_ended"),
        job_texts.c.sampling["reasoning_effort"].astext.label("reasoning_effort"),
        job_texts.c.tool_calls,
    )
    # An inner join: an erased job has no texts and must not be found.
    .join(job_texts, job_texts.c.job_id == jobs.c.id)
    .outerjoin(attempts, sa.and_(attempts.c.job_id == jobs.c.id, attempts.c.number == jobs.c.attempt))
    # The bill: at most one row, by a unique index.
    .outerjoin(ledger, sa.and_(ledger.c.job_id == jobs.c.id, ledger.c.kind.in_(_BILLED)))
)
#: As text: nothing here reads them, so they are passed on as stored.
_LOGPROBS = sa.func.coalesce(sa.cast(job_texts.c.logprobs_json, sa.Text), sa.cast(job_texts.c.logprobs, sa.Text))
_TOOLS = job_texts.c.sampling["tools"].label("tools")
_OTHERS = job_texts.c.choices.label("others")
_SELECT_JOB = _SELECT.add_columns(
    job_texts.c.answer, _LOGPROBS.label("logprobs"), job_texts.c.reasoning, _TOOLS, _OTHERS
)
#: Without what can have megabytes per job, vectors of embeddings too.
_TEXT = sa.case((jobs.c.max_tokens > 0, job_texts.c.answer)).label("answer")
_NOT_LISTED = (sa.null().label(name) for name in ("logprobs", "reasoning", "tools", "others"))
_SELECT_LISTED = _SELECT.add_columns(_TEXT, *_NOT_LISTED)


def _asked_for(selected: Select[Any]) -> Statement:
    """The statement that selects jobs by a JSON list of (app id, job id)."""
    typed = (sa.column("app_id", jobs.c.app_id.type), sa.column("id", jobs.c.id.type))
    given = rows_sent("given", typed, "given")
    mine = selected.join(given, sa.and_(given.c.id == jobs.c.id, given.c.app_id == jobs.c.app_id))
    # The planner estimates one row between two bounds: see `attempts.statements`.
    return Statement.of(mine.where(given.c.id.between(UUID(int=0), UUID(int=2**128 - 1))))


FIND = _asked_for(_SELECT_JOB)
FIND_LISTED = _asked_for(_SELECT_LISTED)


def find(db: Connection, app_id: UUID, job_id: UUID) -> Job:
    """One job of this app. Raises: NotFound, also for another app's job and for an erased one."""
    found = find_all(db, [(app_id, job_id)])
    if not found:
        raise not_found(job_id)
    return found[app_id, job_id]


def find_all(db: Connection, asked: Iterable[tuple[UUID, UUID]]) -> dict[tuple[UUID, UUID], Job]:
    """Those of the jobs that exist, matched by (app id, job id)."""
    return _read(db, FIND, asked)


def read_all(store: Store, asked: Iterable[tuple[UUID, UUID]]) -> dict[tuple[UUID, UUID], Job]:
    """As `find_all`, in a transaction of its own. Raises: StoreUnavailable."""
    return {(row.app_id, row.id): _job_of(row) for row in store.run(FIND.sql, _given(FIND, asked))}


def _read(db: Connection, statement: Statement, asked: Iterable[tuple[UUID, UUID]]) -> dict[tuple[UUID, UUID], Job]:
    rows = db.exec_driver_sql(statement.sql, _given(statement, asked))
    return {(row.app_id, row.id): _job_of(row) for row in rows}


def _given(statement: Statement, asked: Iterable[tuple[UUID, UUID]]) -> dict[str, Any]:
    given = json.dumps([{"app_id": str(app_id), "id": str(job_id)} for app_id, job_id in set(asked)])
    return {**statement.parameters, "given": given}


def ended_among(db: Connection, job_ids: Sequence[UUID]) -> list[UUID]:
    """Those of the given jobs that have ended, or will at their next read: one cheap query for many readers.

    Jobs without a row are among them: a failover to a standby that never had them has lost them.
    """
    wanted = jobs.c.id == sa.any_(sa.cast(job_ids, ARRAY(sa.Uuid)))
    is_news = sa.or_(jobs.c.state.in_(TERMINAL), _IS_OVER, _IS_LEADER_ENDED)
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
        found = _read(db, FIND_LISTED, ((app_id, job_id) for job_id in job_ids))
        # A job that was erased between the two reads would make this page look like the last one.
        if len(found) == len(job_ids):
            break
    return [found[app_id, job_id] for job_id in job_ids if (app_id, job_id) in found]


def page(app_id: UUID, state: JobState | None, after: UUID | None, limit: int) -> Select[Any]:
    """Select the ids of such a page."""
    of_app = sa.select(jobs.c.id).where(jobs.c.app_id == app_id, jobs.c.erased_at.is_(None))
    if state is not None:
        of_app = of_app.where(jobs.c.state == _SPELLED[state])
    if after is not None:
        of_app = of_app.where(jobs.c.id < after)
    return of_app.order_by(jobs.c.id.desc()).limit(limit)


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


def not_found(job_id: UUID) -> NotFound:
    """The error for an unknown job id, or for another app's job."""
    return NotFound(f"No job with id '{show_id(job_id)}'.")


def late(db: Connection, *conditions: ColumnElement[bool]) -> list[Row[Any]]:
    """Lock and return the ids of at most `SWEEP_ROWS` unclaimed jobs whose time has passed, oldest first."""
    found = list(db.execute(_first(jobs.c.start_by, SWEEP_ROWS, IS_UNSTARTED, _START_IS_LATE, *conditions)))
    by_finish = (IS_UNSTARTED, _FINISH_IS_LATE, sa.not_(_START_IS_LATE), *conditions)
    return found + list(db.execute(_first(jobs.c.finish_by, SWEEP_ROWS - len(found), *by_finish)))


def expire(db: Connection, job_ids: Sequence[UUID]) -> list[Ticket]:
    """End those of the jobs that are unclaimed and whose time has passed."""
    these = jobs.c.id == sa.any_(sa.cast(job_ids, ARRAY(sa.Uuid)))
    expired = transition(db, UNSTARTED, JobState.EXPIRED, _START_IS_LATE, these, by_key=True, **_EXPIRED)
    overdue = transition(db, UNSTARTED, JobState.FAILED, _FINISH_IS_LATE, these, by_key=True, **_OVERDUE)
    return [ticket_of(row) for row in (*expired, *overdue)]


def _first(by: sa.Column[Any], most: int, *conditions: ColumnElement[bool]) -> Select[Any]:
    """Lock and select the first jobs, by this column, that meet the conditions and are not locked."""
    return sa.select(jobs.c.id).where(*conditions).order_by(by).limit(most).with_for_update(skip_locked=True)


def enqueue_due(db: Connection) -> list[Ticket]:
    """Move at most `SWEEP_ROWS` due jobs from `waiting` to `queued`. The caller must push their messages."""
    due = _first(jobs.c.not_before, SWEEP_ROWS, IS_WAITING, jobs.c.not_before <= sa.func.now())
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
    return [ticket_of(row) for row in rows]


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
    """The `enqueue_no` of each given job that is `queued` now."""
    these = jobs.c.id == sa.any_(sa.cast(list(job_ids), ARRAY(sa.Uuid)))
    statement = sa.select(jobs.c.id, jobs.c.enqueue_no).where(these, jobs.c.state + "" == JobState.QUEUED)
    return {row.id: row.enqueue_no for row in db.execute(statement)}


def ticket_of(row: Row[Any]) -> Ticket:
    """The ticket of a row of `jobs`."""
    return Ticket(
        row.id,
        row.app_id,
        row.queue,
        Lane(row.lane),
        row.prompt_tokens,
        row.max_tokens,
        row.start_by,
        row.enqueue_no,
        alone=row.suspicion >= SUSPECT,
        n=row.n or 1,
    )
