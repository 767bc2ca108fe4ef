"""The exact cache: finds finished answers, and gives them to new jobs, which end in the statement that inserts them.

An answer belongs to one app, is found by the key of all that determines it, and lasts as long as its job's texts.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import CTE, ColumnElement, FromClause, Select, TableValuedAlias
from sqlalchemy.exc import DBAPIError

from headrace.domain.ids import oldest_id, show_id
from headrace.domain.jobs import JobSpec, Placement
from headrace.domain.queues import Lane, Overflow, Route
from headrace.domain.states import TERMINAL, JobState
from headrace.store.bad_rows import told
from headrace.store.jobs.idempotency import take
from headrace.store.jobs.insertion import HOT_COLUMNS, columns, row_of
from headrace.store.jobs.reading.finding import SPELLED_BILLED
from headrace.store.jobs.transitions import ANNOUNCED, announce
from headrace.store.session import Store
from headrace.store.statement import Statement, rows_sent
from headrace.tables import job_texts, jobs, ledger

log = logging.getLogger(__name__)

#: How a job must have ended for its answer to serve others.
ENDED_WELL = ("stop", "length", "tool_calls")
#: The newest jobs of one key that a search reads. Few have one key: a job that is served has none, and neither has one
#: that comes while another of the same key is under way.
CANDIDATES = 20
#: A job ends so long after its acceptance at most, or its answer serves none: older months need no search.
LONGEST_JOB = timedelta(days=2)

_encode = json.JSONEncoder(separators=(",", ":")).encode
#: Columns that a job takes over from the one whose answer it is given.
OF_JOB = ("model_served", "finish_reason", "output_tokens", "cached_tokens", "reasoning_tokens")
OF_TEXT = ("answer", "logprobs", "logprobs_json", "reasoning", "tool_calls", "choices")


@dataclass(frozen=True, slots=True)
class Question:
    """A new job that an identical job's answer may serve.

    Attributes:
        spec: with its `cache_key`.
        keep_s: how old that answer may be, in seconds.
        now: the time by the clock that makes the jobs' ids.
        may_follow: True if a job under way is wanted that the new one may follow.
    """

    spec: JobSpec
    keep_s: float
    now: datetime
    may_follow: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        job_id: the job whose answer serves; None if none does.
        is_pending: True if a job of the same key is under way whose answer will serve, no later than its own.
        leader_id: the one that the new job may follow; None if it may follow none.
    """

    job_id: UUID | None = None
    is_pending: bool = False
    leader_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A new job, and the job whose answer it is given.

    Attributes:
        queue, route: those in which it would have waited.
    """

    question: Question
    job_id: UUID
    queue: str
    route: Route


def search(store: Store, questions: Sequence[Question]) -> dict[UUID, Found]:
    """Search an answer for each job, in one statement. Returns: what was found, by the new job's id.

    Raises: StoreUnavailable.
    """
    given = [{"id": str(each.spec.id), **_asked(each), **_wanted(each)} for each in questions]
    statement = _search()
    with store.autocommit() as db:
        rows = db.exec_driver_sql(statement.sql, {**statement.parameters, "rows": _encode(given)}).all()
    return {row.id: Found(row.source_id, row.is_pending, row.leader_id) for row in rows}


def serve(store: Store, hits: Sequence[Hit]) -> dict[UUID, datetime]:
    """Insert jobs as `succeeded` with the answers that were found, their bills and their webhooks.

    One transaction. A job is left out if its answer was erased or grew too old since the search, if its Idempotency-Key
    is taken, or if Postgres refuses one of the rows: it is then inserted as any other.
    Returns: the `start_by` of each inserted job. Raises: StoreUnavailable.
    """
    statement = _serve()
    rows = _encode([_row(hit) for hit in hits])
    has_webhook = any(hit.question.spec.webhook_url for hit in hits)
    try:
        with store.begin() if has_webhook else store.autocommit() as db:
            served = db.exec_driver_sql(statement.sql, {**statement.parameters, "rows": rows}).all()
            announce(db, served)
    except DBAPIError as error:
        log.warning("cached_answers_refused", extra={"jobs": len(hits), "error": told(error)})
        return {}
    return {row.id: row.start_by for row in served}


def _asked(question: Question) -> dict[str, object]:
    oldest = question.now - timedelta(seconds=question.keep_s) - LONGEST_JOB
    spec = question.spec
    return {
        "app_id": str(spec.app_id),
        "cache_key": f"\\x{(spec.cache_key or b'').hex()}",
        "overflow": spec.overflow,
        "keep_s": question.keep_s,
        "oldest": str(oldest_id(oldest)),
    }


def _wanted(question: Question) -> dict[str, object]:
    """What a job under way must have, to serve or to lead."""
    spec = question.spec
    return {"may_follow": question.may_follow, "stream": spec.stream, "lane_rank": spec.lane.priority}


def _row(hit: Hit) -> dict[str, object]:
    placement = Placement(hit.queue, hit.route, f"cache: the answer of {show_id(hit.job_id)}")
    row = row_of(hit.question.spec, placement)
    return {**row, **_asked(hit.question), "cache": "hit", "state": JobState.SUCCEEDED, "source_id": str(hit.job_id)}


def few(table: TableValuedAlias) -> Select[Any]:
    """Select the rows of a table as few, by their ids: the planner estimates one row between two bounds.

    So it looks up each job by its key: see `attempts.statements`.
    """
    return sa.select(table).where(table.c.id.between(UUID(int=0), UUID(int=2**128 - 1)))


def _asked_columns() -> list[sa.ColumnClause[Any]]:
    """The names and types of `_asked`, but for those that a job's own row has too."""
    return [sa.column("keep_s", sa.Double), sa.column("oldest", sa.Uuid)]


def serves(given: Any, source: FromClause = jobs) -> ColumnElement[bool]:
    """Whether the answer of a job serves the given one. Args: source: `jobs`, or an alias of it."""
    may_be_paid = given.overflow != Overflow.NEVER
    may_be_own = given.overflow != Overflow.ONLY
    return sa.and_(
        source.c.app_id == given.app_id,
        source.c.state + "" == JobState.SUCCEEDED,
        source.c.finish_reason.in_(ENDED_WELL),
        source.c.ended_at > sa.func.now() - given.keep_s * sa.literal_column("interval '1 s'"),
        sa.or_(
            sa.and_(source.c.route == Route.POOL, may_be_own), sa.and_(source.c.route == Route.OVERFLOW, may_be_paid)
        ),
    )


def _is_no_later(given: Any) -> ColumnElement[bool]:
    """Whether the job in `jobs` is under way, and has started or is in as good a lane as the given one."""
    rank = sa.case({str(lane): lane.priority for lane in Lane}, value=jobs.c.lane)
    return sa.and_(jobs.c.state.not_in(TERMINAL), sa.or_(jobs.c.started_at.is_not(None), rank <= given.lane_rank))


def _leads(given: Any) -> ColumnElement[bool]:
    """Whether the given job may follow the job in `jobs`. A stream follows a stream.

    No job waits longer for a leader than in its own queue. The paid API may answer both or neither.
    """
    return sa.and_(
        given.may_follow,
        _is_no_later(given),
        jobs.c.served_by_job.is_(None),
        jobs.c.cancel_requested_at.is_(None),
        jobs.c.overflow == given.overflow,
        sa.or_(jobs.c.stream, sa.not_(given.stream)),
    )


@cache
def _search() -> Statement:
    own = [sa.column(name, kind.type) for name, kind in (("id", jobs.c.id), ("app_id", jobs.c.app_id))]
    own += [sa.column("cache_key", sa.LargeBinary), sa.column("overflow", sa.Text), sa.column("lane_rank", sa.Integer)]
    own += [sa.column(name, sa.Boolean) for name in ("may_follow", "stream")]
    given = few(rows_sent("rows", [*own, *_asked_columns()])).cte("given")
    text = job_texts.c
    newest = (
        sa.select(text.job_id)
        .where(text.cache_key == given.c.cache_key, text.job_id >= given.c.oldest, text.job_id != given.c.id)
        .order_by(text.job_id.desc())
        .limit(CANDIDATES)
        .lateral("newest")
    )
    # As text, which sorts alike: Postgres 16 has no max() of UUIDs.
    newest_id = sa.func.max(sa.cast(jobs.c.id, sa.Text))
    may_serve = sa.or_(given.c.overflow == Overflow.ALLOW, jobs.c.overflow == given.c.overflow)
    statement = (
        sa.select(
            given.c.id,
            sa.cast(newest_id.filter(serves(given.c)), sa.Uuid).label("source_id"),
            sa.func.bool_or(sa.and_(_is_no_later(given.c), may_serve)).label("is_pending"),
            sa.cast(newest_id.filter(_leads(given.c)), sa.Uuid).label("leader_id"),
        )
        .select_from(given)
        .join(newest, sa.true())
        .join(jobs, sa.and_(jobs.c.id == newest.c.job_id, jobs.c.app_id == given.c.app_id))
        .group_by(given.c.id)
    )
    return Statement.of(statement)


@cache
def _serve() -> Statement:
    asked = [sa.column("source_id", sa.Uuid), *_asked_columns()]
    given = few(rows_sent("rows", [*columns(), *asked])).cte("given")
    found = _found(given)
    fresh = sa.or_(found.c.key.is_(None), found.c.id.in_(sa.select(take(found).c.job_id)))
    now = sa.func.now()
    values = {name: found.c[name] for name in (*HOT_COLUMNS, *OF_JOB)} | {
        "prompt_tokens": found.c.counted_tokens,
        "served_by_job": found.c.source_id,
        "start_by": now + found.c.max_wait_s * sa.literal_column("interval '1 s'"),
        "ended_at": now,
    }
    texts = sa.select(found.c.id, *(found.c[name] for name in ("messages", "sampling", *OF_TEXT))).where(fresh)
    into = ["job_id", "messages", "sampling", *OF_TEXT]
    bill = _bill(found)
    statement = (
        sa.insert(jobs)
        .from_select(list(values), sa.select(*values.values()).where(fresh))
        .returning(*(jobs.c[name] for name in ANNOUNCED), jobs.c.start_by)
        .add_cte(sa.insert(job_texts).from_select(into, texts).cte("texts"))
        .add_cte(sa.insert(ledger).from_select(list(bill), sa.select(*bill.values()).where(fresh)).cte("booked"))
    )
    return Statement.of(statement)


def _found(given: CTE) -> CTE:
    """The given jobs whose answers still serve, with these.

    The lock keeps an answer from being erased until the commit. An answer that is just being erased is passed over.
    """
    of_text = [job_texts.c[name] for name in OF_TEXT]
    of_bill = [ledger.c.api_usd, ledger.c.usd.label("saved_usd")]
    is_bill = sa.and_(ledger.c.job_id == jobs.c.id, ledger.c.kind.in_(SPELLED_BILLED))
    return (
        sa.select(
            given,
            jobs.c.prompt_tokens.label("counted_tokens"),
            *(jobs.c[name] for name in OF_JOB),
            *of_text,
            *of_bill,
        )
        .select_from(given)
        .join(jobs, jobs.c.id == given.c.source_id)
        .join(job_texts, job_texts.c.job_id == jobs.c.id)
        .outerjoin(ledger, is_bill)
        .where(serves(given.c), job_texts.c.cache_key == given.c.cache_key, job_texts.c.answer.is_not(None))
        .with_for_update(of=job_texts, key_share=True, read=True, skip_locked=True)
        .cte("found")
    )


def _bill(found: CTE) -> dict[str, ColumnElement[Any]]:
    """The ledger's entry: nothing is charged, and what the answer cost is saved."""
    return {
        "kind": sa.literal("cache"),
        "job_id": found.c.id,
        "app_id": found.c.app_id,
        "end_user": found.c.end_user,
        "pool": found.c.pool,
        "model": sa.func.coalesce(found.c.model_served, found.c.model_requested),
        "prompt_tokens": found.c.counted_tokens,
        "cached_tokens": sa.func.coalesce(found.c.cached_tokens, 0),
        "output_tokens": sa.func.coalesce(found.c.output_tokens, 0),
        "usd": sa.literal(0),
        "api_usd": found.c.api_usd,
        "saved_usd": found.c.saved_usd,
    }
