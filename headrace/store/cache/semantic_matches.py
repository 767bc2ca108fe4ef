"""Matches: what became of jobs that have an entry, and whether its answer was right, from which the bound learns.

A job that ran although it has an entry is judged once it has ended. While it waits, it is looked at ever more seldom,
so that a backlog costs little.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row
from sqlalchemy.dialects.postgresql import ARRAY, insert

from headrace.domain.states import TERMINAL, JobState
from headrace.policies.caching import MatchKind
from headrace.policies.reuse.bound import Try
from headrace.store.cache.exact_cache import ENDED_WELL
from headrace.store.sql import delete_chosen, is_one_of
from headrace.tables import cache_entries, cache_matches, job_texts, jobs

#: Matches that are judged in one transaction.
JUDGE_ROWS = 500
#: Longer answers, in characters, agree only if they are equal.
COMPARED_CHARACTERS = 8_000
#: The newest tries of an app in a pool that make its record.
RECORD_TRIES = 2_000
#: How long matches are kept, in days.
KEEP_DAYS = 90
#: The most rows that one `forget` deletes.
FORGET_ROWS = 5_000

_ENTRY, _ENTRY_TEXT = jobs.alias("entry"), job_texts.alias("entry_text")


@dataclass(frozen=True, slots=True)
class Noted:
    """A job's match. Attributes: entry_id: the entry's job. similarity: of both questions, a cosine."""

    job_id: UUID
    app_id: UUID
    pool: str
    entry_id: UUID
    similarity: float
    kind: MatchKind


@dataclass(frozen=True, slots=True)
class Due:
    """A match to be judged.

    Attributes:
        kind: see `MatchKind`.
        has_ended: False while its job may still get an answer.
        is_same: whether both answers are equal; None if one of them is gone, or the job has failed.
        answers: both, if they are short.
    """

    job_id: UUID
    pool: str
    kind: str
    has_ended: bool
    is_same: bool | None
    answers: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class Tried:
    """The tries of an app.

    Attributes:
        entries: the tries of each entry, oldest first; the entry that was tried last comes last.
        rechecks, wrong: of them, tries of entries that might have served, and those that were wrong.
    """

    entries: list[tuple[Try, ...]]
    rechecks: int
    wrong: int


def note(db: Connection, matches: Sequence[Noted]) -> None:
    """Write the matches of jobs that have none, and note that their entries were used."""
    if not matches:
        return
    fields = ("job_id", "app_id", "pool", "entry_id", "similarity", "kind")
    values = [{name: getattr(each, name) for name in fields} for each in matches]
    if served := [each for each in values if each["kind"] == "served"]:
        db.execute(insert(cache_matches).on_conflict_do_nothing(), served)
    if ran := [each for each in values if each["kind"] != "served"]:
        db.execute(insert(cache_matches).values(judge_at=sa.func.now()).on_conflict_do_nothing(), ran)
    # In one order, so that two transactions cannot deadlock; those that another one holds are used anyway.
    these = is_one_of(cache_entries.c.job_id, [each.entry_id for each in matches])
    free = sa.select(cache_entries.c.job_id).where(these).with_for_update(skip_locked=True).scalar_subquery()
    db.execute(sa.update(cache_entries).where(cache_entries.c.job_id.in_(free)).values(used_at=sa.func.now()))


def due(db: Connection) -> list[Due]:
    """Lock and return matches to be judged, those that are due for longest first."""
    first = (
        sa.select(*(cache_matches.c[name] for name in ("job_id", "entry_id", "pool", "kind")))
        .where(cache_matches.c.judge_at.is_not(None), cache_matches.c.judge_at <= sa.func.now())
        .order_by(cache_matches.c.judge_at)
        .limit(JUDGE_ROWS)
        .with_for_update(skip_locked=True)
    )
    found = db.execute(first).all()
    by_job = {row.job_id: row for row in found}
    return [_due(by_job[row.job_id], row) for row in _read(db, found)] if found else []


def _read(db: Connection, found: Sequence[Any]) -> Sequence[Row[Any]]:
    given = sa.func.unnest(_ids([row.job_id for row in found]), _ids([row.entry_id for row in found]))
    pair = given.table_valued("job_id", "entry_id", name="pair").render_derived()
    mine, theirs = job_texts.c.answer, _ENTRY_TEXT.c.answer
    is_short = sa.and_(sa.func.length(mine) <= COMPARED_CHARACTERS, sa.func.length(theirs) <= COMPARED_CHARACTERS)
    ended_well = [
        sa.and_(each.c.state + "" == JobState.SUCCEEDED, each.c.finish_reason.in_(ENDED_WELL))
        for each in (jobs, _ENTRY)
    ]
    statement = (
        sa.select(
            pair.c.job_id,
            jobs.c.state,
            # An answer that the job was given says nothing.
            sa.and_(*ended_well, jobs.c.app_id == _ENTRY.c.app_id, jobs.c.served_by_job.is_(None)).label("is_judged"),
            (mine == theirs).label("is_same"),
            sa.case((is_short, mine)).label("answer"),
            sa.case((is_short, theirs)).label("entry_answer"),
        )
        .select_from(pair)
        .outerjoin(jobs, jobs.c.id == pair.c.job_id)
        .outerjoin(job_texts, job_texts.c.job_id == pair.c.job_id)
        .outerjoin(_ENTRY, _ENTRY.c.id == pair.c.entry_id)
        .outerjoin(_ENTRY_TEXT, _ENTRY_TEXT.c.job_id == pair.c.entry_id)
    )
    return db.execute(statement).all()


def _due(match: Row[Any], row: Row[Any]) -> Due:
    is_short = row.answer is not None and row.entry_answer is not None
    return Due(
        row.job_id,
        match.pool,
        match.kind,
        row.state is None or row.state in TERMINAL,
        row.is_same if row.is_judged else None,
        (row.answer, row.entry_answer) if is_short else None,
    )


def judged(db: Connection, *, right: Sequence[UUID], wrong: Sequence[UUID], void: Sequence[UUID]) -> None:
    """Store verdicts. A question whose answer agrees is no entry of its own: the other one stands for it.

    Args: void: matches that cannot be judged, which are deleted.
    """
    for is_right, job_ids in ((True, right), (False, wrong)):
        these = sa.update(cache_matches).where(is_one_of(cache_matches.c.job_id, job_ids))
        db.execute(these.values(is_right=is_right, judge_at=None))
    db.execute(sa.delete(cache_matches).where(is_one_of(cache_matches.c.job_id, void)))
    db.execute(sa.delete(cache_entries).where(is_one_of(cache_entries.c.job_id, right)))


def tries_of(db: Connection, app_id: UUID, pool: str) -> Tried:
    """The newest tries of an app in a pool."""
    match = cache_matches.c
    newest = (
        sa.select(match.entry_id, match.similarity, match.is_right, match.kind)
        .where(match.app_id == app_id, match.pool == pool, match.is_right.is_not(None))
        .order_by(match.at.desc())
        .limit(RECORD_TRIES)
    )
    by_entry: dict[UUID, list[Try]] = {}
    rechecks = list[bool]()
    for row in db.execute(newest):
        by_entry.setdefault(row.entry_id, []).append(Try(row.similarity, row.is_right))
        if row.kind in ("recheck", "shadow"):
            rechecks.append(row.is_right)
    by_last = [tuple(reversed(tries)) for tries in reversed(by_entry.values())]
    return Tried(by_last, len(rechecks), rechecks.count(False))


def put_off(db: Connection, job_ids: Sequence[UUID]) -> None:
    """Look at these later: after half of their wait so far, a second at least."""
    later: sa.ColumnElement[Any] = sa.literal_column("now() + greatest(interval '1 s', (now() - at) / 2)")
    these = sa.update(cache_matches).where(is_one_of(cache_matches.c.job_id, job_ids))
    db.execute(these.values(judge_at=later))


def forget(db: Connection) -> int:
    """Delete matches older than `KEEP_DAYS`; returns how many."""
    age: sa.ColumnElement[Any] = sa.literal_column(f"interval '{KEEP_DAYS} days'")
    old = sa.select(cache_matches.c.job_id).where(cache_matches.c.at < sa.func.now() - age).limit(FORGET_ROWS)
    return db.execute(delete_chosen(old, cache_matches)).rowcount


def _ids(job_ids: Sequence[UUID]) -> sa.Cast[Any]:
    return sa.cast(list(job_ids), ARRAY(sa.Uuid))
