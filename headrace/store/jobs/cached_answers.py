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
from sqlalchemy import ColumnElement, FromClause, Select
from sqlalchemy.exc import DBAPIError

from headrace.domain.ids import oldest_id, show_id
from headrace.domain.jobs import JobSpec
from headrace.domain.queues import Lane, Overflow, Route
from headrace.domain.states import TERMINAL, JobState
from headrace.store.bad_rows import told
from headrace.store.jobs.idempotency import IDEMPOTENCY_TTL
from headrace.store.jobs.insertion import row_of
from headrace.store.jobs.transitions import announce
from headrace.store.rows import few, rows_sent
from headrace.store.session import Store
from headrace.store.sql import Statement
from headrace.tables import job_texts, jobs

log = logging.getLogger(__name__)

#: How a job must have ended for its answer to serve others.
ENDED_WELL = ("stop", "length", "tool_calls")
#: The newest jobs of one key that a search reads. Few have one key: a job that is served has none, and neither has one
#: that comes while another of the same key is under way.
CANDIDATES = 20
#: A job ends so long after its acceptance at most, or its answer serves none: older months need no search.
LONGEST_JOB = timedelta(days=2)

_INSERT_ANSWERED = Statement("insert_answered")
_encode = json.JSONEncoder(separators=(",", ":")).encode


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
        queue: in which it would have waited.
    """

    question: Question
    job_id: UUID
    queue: str


def search(store: Store, questions: Sequence[Question]) -> dict[UUID, Found]:
    """Search an answer for each job, in one statement. Returns: what was found, by the new job's id.

    Raises: StoreUnavailable.
    """
    given = [{"id": str(each.spec.id), **_asked(each), **_wanted(each)} for each in questions]
    with store.autocommit() as db:
        rows = db.execute(_search(), {"rows": given}).all()
    return {row.id: Found(row.source_id, row.is_pending, row.leader_id) for row in rows}


def serve(store: Store, hits: Sequence[Hit]) -> dict[UUID, datetime]:
    """Insert jobs as `succeeded` with the answers that were found, their bills and their webhooks.

    One transaction. A job is left out if its answer was erased or grew too old since the search, if its Idempotency-Key
    is taken, or if Postgres refuses one of the rows: it is then inserted as any other.
    Returns: the `start_by` of each inserted job. Raises: StoreUnavailable.
    """
    given = _encode([_row(hit) for hit in hits])
    has_webhook = any(hit.question.spec.webhook_url for hit in hits)
    try:
        with store.begin() if has_webhook else store.autocommit() as db:
            served = _INSERT_ANSWERED.run(db, given=given, key_ttl=IDEMPOTENCY_TTL)
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
    row = row_of(hit.question.spec, hit.queue, f"cache: the answer of {show_id(hit.job_id)}")
    return {**row, **_asked(hit.question), "cache": "hit", "state": JobState.SUCCEEDED, "source_id": str(hit.job_id)}


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
def _search() -> Select[Any]:
    """The statement of `search`. To build it takes longer than to run it."""
    own = [sa.column(name, kind.type) for name, kind in (("id", jobs.c.id), ("app_id", jobs.c.app_id))]
    own += [sa.column("cache_key", sa.LargeBinary), sa.column("overflow", sa.Text), sa.column("lane_rank", sa.Integer)]
    own += [sa.column(name, sa.Boolean) for name in ("may_follow", "stream")]
    own += [sa.column("keep_s", sa.Double), sa.column("oldest", sa.Uuid)]
    given = few(rows_sent("rows", own)).cte("given")
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
    return (
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
