"""Single flight: jobs that wait for the answer of an identical job under way, their leader, instead of an attempt.

A follower is `waiting`, names its leader in `served_by_job`, and is in no queue. When the leader has ended, `settle`
gives its followers the answer, or makes one of them the next leader.
"""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Row
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError

from headrace.domain.ids import show_id
from headrace.domain.jobs import JobSpec
from headrace.domain.queues import Lane
from headrace.domain.states import TERMINAL, JobState
from headrace.store.bad_rows import told
from headrace.store.jobs.cached_answers import ENDED_WELL
from headrace.store.jobs.conditions import IS_WAITING
from headrace.store.jobs.finding import SPELLED_BILLED
from headrace.store.jobs.idempotency import IDEMPOTENCY_TTL
from headrace.store.jobs.insertion import row_of
from headrace.store.jobs.transitions import ANNOUNCED, announce, moving, transition
from headrace.store.session import Store
from headrace.store.sql import Statement
from headrace.tables import job_texts, jobs, ledger

log = logging.getLogger(__name__)

#: The most followers that one `settle` ends or moves.
SETTLE_ROWS = 1000
#: Errors that every attempt at the same prompt meets: followers fail with their leader, and no engine dies again.
SHARED_ERRORS = frozenset({"engine_crash", "prompt_rejected"})

#: Columns that a job takes over from the one whose answer it is given.
_OF_JOB = ("model_served", "finish_reason", "prompt_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
_OF_TEXT = ("answer", "logprobs", "logprobs_json", "reasoning", "tool_calls", "choices")
_INSERT_FOLLOWING = Statement("insert_following")
_encode = json.JSONEncoder(separators=(",", ":")).encode
#: The leader's row beside its follower's, `jobs`; and its text beside `job_texts`.
_LEADER, _LEADER_TEXT = jobs.alias("leader"), job_texts.alias("leader_text")
_RANK = sa.case({str(lane): lane.priority for lane in Lane}, value=jobs.c.lane)


@dataclass(frozen=True, slots=True)
class Follower:
    """A new job, and the job under way that it follows.

    Attributes:
        queue: in which it would wait otherwise.
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
    given = _encode([_row(each) for each in followers])
    try:
        inserted = _INSERT_FOLLOWING.run(store, given=given, key_ttl=IDEMPOTENCY_TTL)
    except DBAPIError as error:
        log.warning("followers_refused", extra={"jobs": len(followers), "error": told(error)})
        return {}
    return {row.id: row.start_by for row in inserted}


def settle(db: Connection, found: Sequence[Row[Any]]) -> list[Settled]:
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


def serve(db: Connection, found: Sequence[Row[Any]]) -> list[UUID]:
    """End those of the followers whose leaders' answers are there. Args: found: as in `settle`. Returns: their ids."""
    answered = _answered(db, found)
    return _serve(db, [row.id for row in found if row.leader_id in answered])


def _row(follower: Follower) -> dict[str, object]:
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


def _ended_well(row: Row[Any]) -> bool:
    return bool(row.leader_state == JobState.SUCCEEDED and row.leader_finish_reason in ENDED_WELL)


def _fails_with(row: Row[Any]) -> bool:
    return bool(row.leader_state == JobState.FAILED and row.error_code in SHARED_ERRORS)


def _answered(db: Connection, found: Sequence[Row[Any]]) -> set[UUID]:
    """The leaders whose answers are there. They cannot be erased until the commit."""
    return hold_answers(db, {row.leader_id for row in found if _ended_well(row)})


def hold_answers(db: Connection, job_ids: Collection[UUID]) -> set[UUID]:
    """Those of the jobs whose answers are there. They cannot be erased until the commit."""
    if not job_ids:
        return set()
    these = (_is_one_of(job_texts.c.job_id, list(job_ids)), job_texts.c.answer.is_not(None))
    there = sa.select(job_texts.c.job_id).where(*these)
    return set(db.scalars(there.with_for_update(key_share=True, read=True, skip_locked=True)))


def _serve(db: Connection, job_ids: Sequence[UUID]) -> list[UUID]:
    """End followers with their leaders' answers, and book them."""
    if not job_ids:
        return []
    is_led = _LEADER.c.id == jobs.c.served_by_job
    taken = {name: _LEADER.c[name] for name in _OF_JOB}
    moved = moving([JobState.WAITING], JobState.SUCCEEDED, _is_one_of(jobs.c.id, job_ids), is_led, by_key=True, **taken)
    rows = db.execute(moved.returning(*(jobs.c[name] for name in ANNOUNCED))).all()
    return give_answers(db, rows)


def give_answers(db: Connection, rows: Sequence[Row[Any]]) -> list[UUID]:
    """Give jobs that have just succeeded the answers of those that `served_by_job` names, book and announce them.

    Args: rows: the columns ANNOUNCED of the jobs. Returns: their ids.
    """
    ended = [row.id for row in rows]
    these = _is_one_of(jobs.c.id, ended)
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
    db.execute(sa.insert(ledger).from_select(list(values), entries.where(_is_one_of(jobs.c.id, job_ids))))


def _fail(db: Connection, rows: Sequence[Row[Any]]) -> list[UUID]:
    """End followers with their leaders' errors."""
    if not rows:
        return []
    error = {name: _LEADER.c[name] for name in ("error_code", "error_message")}
    these = (_is_one_of(jobs.c.id, [row.id for row in rows]), _LEADER.c.id == jobs.c.served_by_job)
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


def _is_one_of(column: sa.Column[UUID], job_ids: Sequence[UUID]) -> ColumnElement[bool]:
    return column == sa.any_(sa.cast(list(job_ids), ARRAY(sa.Uuid)))
