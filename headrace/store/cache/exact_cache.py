"""The exact cache and single flight: a new job is given an identical job's answer, or waits for it.

An answer belongs to one app, is found by the key of all that determines it, and lasts as long as its job's texts. A job
that is given one ends in the statement that inserts it.

A follower is a job that waits for the answer of an identical job under way, its leader, instead of an attempt. It is
`waiting`, names its leader in `served_by_job`, and is in no queue. When the leader has ended, `settle_followers` gives
its followers the answer, or makes one of them the next leader.
"""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, FromClause, Row, Select
from sqlalchemy.exc import DBAPIError

from headrace.domain.ids import oldest_id, show_id
from headrace.domain.jobs import JobSpec
from headrace.domain.queues import Lane, Overflow, Route
from headrace.domain.states import TERMINAL, JobState
from headrace.store import Store
from headrace.store.bad_rows import message_of
from headrace.store.jobs import SPELLED_BILLED
from headrace.store.jobs.insertion import IDEMPOTENCY_TTL, row_of
from headrace.store.sql import Statement, few, is_one_of, rows_sent
from headrace.store.states import ANNOUNCED, IS_WAITING, announce, moving, transition
from headrace.tables import job_texts, jobs, ledger

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
        queue: where it would have waited.
    """

    question: Question
    job_id: UUID
    queue: str


def search(store: Store, questions: Sequence[Question]) -> dict[UUID, Found]:
    """Search an answer for each job, in one statement. Returns: what was found, by the new job's id.

    Raises: StoreUnavailable.
    """
    given = [
        {
            "id": str(each.spec.id),
            **_asked(each),
            # What a job under way must have, to serve or to lead.
            **{"may_follow": each.may_follow, "stream": each.spec.stream, "lane_rank": each.spec.lane.priority},
        }
        for each in questions
    ]
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
        log.warning("cached_answers_refused", extra={"jobs": len(hits), "error": message_of(error)})
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


#: The most followers that one `settle` ends or moves.
SETTLE_ROWS = 1000
#: Errors that every attempt at the same prompt meets: followers fail with their leader, and no engine dies again.
SHARED_ERRORS = frozenset({"engine_crash", "prompt_rejected"})

#: Columns that a job takes over from the one whose answer it is given.
_OF_JOB = ("model_served", "finish_reason", "prompt_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
_OF_TEXT = ("answer", "logprobs", "logprobs_json", "reasoning", "tool_calls", "choices")
_INSERT_FOLLOWING = Statement("insert_following")
#: The leader's row beside its follower's, `jobs`; and its text beside `job_texts`.
_LEADER, _LEADER_TEXT = jobs.alias("leader"), job_texts.alias("leader_text")
_RANK = sa.case({str(lane): lane.priority for lane in Lane}, value=jobs.c.lane)


@dataclass(frozen=True, slots=True)
class Follower:
    """A new job, and the job under way that it follows.

    Attributes:
        queue: where it would wait otherwise.
    """

    spec: JobSpec
    leader_id: UUID
    queue: str


class Settled(NamedTuple):
    """What became of a follower whose leader had ended.

    Attributes:
        has_ended: True if it has its leader's answer or error. False if it leads now, and `publish_due` puts it into
            its queue, or follows the one that does.
    """

    job_id: UUID
    has_ended: bool


def follow(store: Store, followers: Sequence[Follower]) -> dict[UUID, datetime]:
    """Insert jobs as followers, in one statement.

    A job is left out if its leader is no more under way, if its Idempotency-Key is taken, or if Postgres refuses one of
    the rows: it is then inserted as any other.
    Returns: the `start_by` of each inserted job. Raises: StoreUnavailable.
    """
    given = _encode([_follower_row(each) for each in followers])
    try:
        inserted = _INSERT_FOLLOWING.run(store, given=given, key_ttl=IDEMPOTENCY_TTL)
    except DBAPIError as error:
        log.warning("followers_refused", extra={"jobs": len(followers), "error": message_of(error)})
        return {}
    return {row.id: row.start_by for row in inserted}


def settle_followers(db: Connection, found: Sequence[Row[Any]]) -> list[Settled]:
    """End or move followers. Args: found: from `of_ended_leaders`, in the same transaction."""
    answered = _answered(db, found)
    ended = _serve(db, [row.id for row in found if row.leader_id in answered])
    ended += _fail(db, [row for row in found if _fails_with(row)])
    # The first of each leader: they are sorted.
    firsts: dict[UUID, Row[Any]] = {}
    for row in found:
        if row.leader_id not in answered and not _fails_with(row):
            firsts.setdefault(row.leader_id, row)
    moved = [job_id for first in firsts.values() for job_id in _promote(db, first)]
    return [*(Settled(job_id, True) for job_id in ended), *(Settled(job_id, False) for job_id in moved)]


def serve_followers(db: Connection, found: Sequence[Row[Any]]) -> list[UUID]:
    """End those of the followers whose leaders' answers are there. Args: found: as in `settle`. Returns: their ids."""
    answered = _answered(db, found)
    return _serve(db, [row.id for row in found if row.leader_id in answered])


def _follower_row(follower: Follower) -> dict[str, object]:
    row = row_of(follower.spec, follower.queue, f"follows {show_id(follower.leader_id)}")
    return {**row, "cache": "shared", "state": JobState.WAITING, "leader_id": str(follower.leader_id)}


def of_ended_leaders(db: Connection, *conditions: ColumnElement[bool]) -> Sequence[Row[Any]]:
    """Lock followers whose leaders have ended, `SETTLE_ROWS` at most, with what became of these.

    Those of better lanes come first, then streams, then the oldest.
    """
    leader: list[ColumnElement[Any]] = [_LEADER.c[name] for name in ("error_code", "error_message", "suspicion")]
    of_leader = ("id", "state", "finish_reason", "started_at", "enqueue_no")
    leader += [_LEADER.c[name].label(f"leader_{name}") for name in of_leader]
    statement = (
        sa.select(jobs.c.id, jobs.c.app_id, *leader)
        .join(_LEADER, sa.and_(_LEADER.c.id == jobs.c.served_by_job, _LEADER.c.app_id == jobs.c.app_id))
        .where(IS_WAITING, jobs.c.served_by_job.is_not(None), _LEADER.c.state.in_(TERMINAL), *conditions)
        .order_by(_RANK, jobs.c.stream.desc(), jobs.c.id)
        .limit(SETTLE_ROWS)
        .with_for_update(of=jobs, skip_locked=True)
    )
    return db.execute(statement).all()


def with_ended_leader(db: Connection, job_id: UUID) -> Sequence[Row[Any]]:
    """As `of_ended_leaders`, of one job."""
    return of_ended_leaders(db, jobs.c.id == job_id)


def has_followers(db: Connection, job_id: UUID) -> bool:
    """True while jobs wait for this job's answer."""
    followed = sa.select(jobs.c.id).where(IS_WAITING, jobs.c.served_by_job == job_id).limit(1)
    return db.scalar(followed) is not None


def _fails_with(row: Row[Any]) -> bool:
    return bool(row.leader_state == JobState.FAILED and row.error_code in SHARED_ERRORS)


def _answered(db: Connection, found: Sequence[Row[Any]]) -> set[UUID]:
    """The leaders whose answers are there. They cannot be erased until the commit."""
    ended_well = [
        row for row in found if row.leader_state == JobState.SUCCEEDED and row.leader_finish_reason in ENDED_WELL
    ]
    return hold_answers(db, {row.leader_id for row in ended_well})


def hold_answers(db: Connection, job_ids: Collection[UUID]) -> set[UUID]:
    """The jobs whose answers are there. They cannot be erased until the commit."""
    if not job_ids:
        return set()
    these = (is_one_of(job_texts.c.job_id, list(job_ids)), job_texts.c.answer.is_not(None))
    there = sa.select(job_texts.c.job_id).where(*these)
    return set(db.scalars(there.with_for_update(key_share=True, read=True, skip_locked=True)))


def _serve(db: Connection, job_ids: Sequence[UUID]) -> list[UUID]:
    """End followers with their leaders' answers, and book them."""
    if not job_ids:
        return []
    is_led = _LEADER.c.id == jobs.c.served_by_job
    taken = {name: _LEADER.c[name] for name in _OF_JOB}
    moved = moving([JobState.WAITING], JobState.SUCCEEDED, is_one_of(jobs.c.id, job_ids), is_led, by_key=True, **taken)
    rows = db.execute(moved.returning(*(jobs.c[name] for name in ANNOUNCED))).all()
    return give_answers(db, rows)


def give_answers(db: Connection, rows: Sequence[Row[Any]]) -> list[UUID]:
    """Give jobs that have just succeeded the answers of those that `served_by_job` names, book and announce them.

    Args: rows: the columns ANNOUNCED of the jobs. Returns: their ids.
    """
    ended = [row.id for row in rows]
    these = is_one_of(jobs.c.id, ended)
    texts = {name: _LEADER_TEXT.c[name] for name in _OF_TEXT}
    is_text = (job_texts.c.job_id == jobs.c.id, _LEADER_TEXT.c.job_id == jobs.c.served_by_job)
    db.execute(sa.update(job_texts).where(these, *is_text).values(texts))
    _book(db, ended)
    announce(db, rows)
    return ended


def _book(db: Connection, job_ids: Sequence[UUID]) -> None:
    """Write the ledger's entries: nothing is charged, and what the leader's answer cost is saved."""
    bill = ledger.alias("bill")
    is_bill = sa.and_(bill.c.job_id == jobs.c.served_by_job, bill.c.kind.in_(SPELLED_BILLED))
    values: Mapping[str, Any] = {
        "kind": sa.literal("cache"),
        "job_id": jobs.c.id,
        **{name: jobs.c[name] for name in ("app_id", "end_user", "pool", "prompt_tokens")},
        "model": sa.func.coalesce(jobs.c.model_served, jobs.c.model_requested),
        "cached_tokens": sa.func.coalesce(jobs.c.cached_tokens, 0),
        "output_tokens": sa.func.coalesce(jobs.c.output_tokens, 0),
        "usd": sa.literal(0),
        "api_usd": bill.c.api_usd,
        # A leader that was given an answer itself has saved what this answer cost.
        "saved_usd": sa.func.coalesce(bill.c.saved_usd, bill.c.usd),
    }
    entries = sa.select(*values.values()).select_from(jobs).outerjoin(bill, is_bill)
    db.execute(sa.insert(ledger).from_select(list(values), entries.where(is_one_of(jobs.c.id, job_ids))))


def _fail(db: Connection, rows: Sequence[Row[Any]]) -> list[UUID]:
    """End followers with their leaders' errors."""
    if not rows:
        return []
    error = {name: _LEADER.c[name] for name in ("error_code", "error_message")}
    these = (is_one_of(jobs.c.id, [row.id for row in rows]), _LEADER.c.id == jobs.c.served_by_job)
    failed = transition(db, [JobState.WAITING], JobState.FAILED, *these, by_key=True, **error)
    return [row.id for row in failed]


def _promote(db: Connection, first: Row[Any]) -> list[UUID]:
    """Make a follower the leader of all others that its leader had. Returns: their ids and its own.

    Its own wait is over if its old leader has started, though not before it came itself. It takes the suspicion over:
    the prompt is the same. Its claims are numbered after the leader's, so that the events of its stream are too: those
    who followed the leader's stream come back to this one.
    """
    old, since = first.leader_id, first.leader_started_at
    started_at = None if since is None else sa.func.greatest(since, jobs.c.created_at)
    due = {"not_before": sa.func.now(), "started_at": started_at, "suspicion": first.suspicion}
    due["enqueue_no"] = sa.func.greatest(first.leader_enqueue_no, jobs.c.enqueue_no)
    led = {"served_by_job": None, "cache": "miss"}
    db.execute(sa.update(jobs).where(jobs.c.id == first.id, IS_WAITING).values(**led, **due))
    others = (IS_WAITING, jobs.c.served_by_job == old, jobs.c.app_id == first.app_id)
    follow = sa.update(jobs).where(*others).values(served_by_job=first.id).returning(jobs.c.id)
    moved = [first.id, *db.scalars(follow)]
    # Its key, unless the old leader's texts were erased: then later jobs find another leader.
    key = sa.select(_LEADER_TEXT.c.cache_key).where(_LEADER_TEXT.c.job_id == old).scalar_subquery()
    db.execute(sa.update(job_texts).where(job_texts.c.job_id == first.id).values(cache_key=key))
    return moved
