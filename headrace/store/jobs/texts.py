"""The texts of jobs: erased once a job has ended, when its app says so, or when they have been kept for long enough.

What a job used and cost stays.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import ARRAY

from headrace.domain.ids import oldest_id, show_id
from headrace.domain.prompts import Message, Sampling
from headrace.domain.states import TERMINAL
from headrace.errors import JobNotEnded
from headrace.store import clock
from headrace.store.jobs import find, not_found
from headrace.tables import job_texts, jobs

#: Jobs whose texts are erased in one transaction because they are old.
FORGET_JOBS = 5_000


def conversation(db: Connection, app_id: UUID, job_id: UUID) -> tuple[Message, ...]:
    """What a job of this app asks to be answered. Raises: NotFound."""
    statement = sa.select(job_texts.c.messages).join(jobs, jobs.c.id == job_texts.c.job_id)
    stored = db.scalar(statement.where(jobs.c.id == job_id, jobs.c.app_id == app_id))
    if stored is None:
        raise not_found(job_id)
    return tuple(Message(**message) for message in stored)


def erase(db: Connection, app_id: UUID, job_id: UUID) -> None:
    """Forget what an ended job's caller wrote and what was answered; what it used and cost stays.

    Raises: NotFound, also when it was erased before. JobNotEnded.
    """
    job = find(db, app_id, job_id)
    if not job.state.is_terminal:
        raise JobNotEnded(
            f"Job '{show_id(job_id)}' is {job.state}: cancel it, and delete it once it has ended.", job_id=job_id
        )
    _erase(db, [job_id])


def forget_old(db: Connection, keep_days: int) -> int:
    """Erase the texts of all apps' jobs that ended longer ago than that, `FORGET_JOBS` at most; returns how many."""
    before = clock.now(db) - timedelta(days=keep_days)
    # A subquery, so that no plan walks through `jobs`, where those that were erased stay: from the oldest text on, each
    # one's job is looked up. Ids sort by time, so that none that is younger has to be.
    ended_at = sa.select(jobs.c.ended_at).where(jobs.c.id == job_texts.c.job_id).scalar_subquery()
    old = sa.select(job_texts.c.job_id).where(job_texts.c.job_id < oldest_id(before), ended_at < before)
    old_ids = db.scalars(old.order_by(job_texts.c.job_id).limit(FORGET_JOBS)).all()
    if not old_ids:
        return 0
    # One that is being deleted, or retried with its texts, is left to the next time.
    free = sa.select(jobs.c.id).where(_is_one_of(jobs.c.id, old_ids)).with_for_update(skip_locked=True)
    job_ids = db.scalars(free).all()
    _erase(db, job_ids)
    return len(job_ids)


def _erase(db: Connection, job_ids: Sequence[UUID]) -> None:
    these = sa.update(jobs).where(_is_one_of(jobs.c.id, job_ids), jobs.c.state.in_(TERMINAL))
    # The message is the paid API's own, where it rejects a prompt, and may quote it. The code says enough.
    db.execute(these.values(erased_at=sa.func.now(), metadata={}, error_message=None))
    db.execute(sa.delete(job_texts).where(_is_one_of(job_texts.c.job_id, job_ids)))


def _is_one_of(column: sa.Column[UUID], job_ids: Sequence[UUID]) -> sa.ColumnElement[bool]:
    return column == sa.any_(sa.cast(list(job_ids), ARRAY(sa.Uuid)))


def sampling_of(stored: Mapping[str, Any]) -> Sampling:
    """Read what `job_texts` keeps of how to decode."""
    return Sampling(**{**stored, "stop": tuple(stored.get("stop", ()))})
