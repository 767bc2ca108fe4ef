"""The texts of jobs. Those of an ended job are erased when its app asks for it, or after a retention time.

The job's usage and cost stay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from headrace.domain.ids import oldest_id, show_id
from headrace.domain.prompts import Message
from headrace.domain.prompts.payloads import read_payload
from headrace.domain.states import TERMINAL, JobState
from headrace.errors import JobNotEnded
from headrace.installed import parts
from headrace.store import clock
from headrace.store.jobs import find, not_found
from headrace.store.sql import is_one_of
from headrace.store.states import UNSTARTED, transition
from headrace.tables import cache_entries, job_texts, jobs

#: The most jobs whose old texts are erased in one transaction.
FORGET_JOBS = 5_000


def conversation(db: Connection, app_id: UUID, job_id: UUID) -> tuple[Message, ...]:
    """The messages of a job of this app. Raises: NotFound. PayloadTooNew. PayloadUnreadable."""
    statement = sa.select(job_texts.c.messages, job_texts.c.sampling).join(jobs, jobs.c.id == job_texts.c.job_id)
    row = db.execute(statement.where(jobs.c.id == job_id, jobs.c.app_id == app_id)).first()
    if row is None:
        raise not_found(job_id)
    return read_payload(row.messages, row.sampling)[0]


def erase(db: Connection, app_id: UUID, job_id: UUID) -> None:
    """Erase an ended job's prompt, answer and metadata, and what plugins have of them; its usage and cost stay.

    Raises: NotFound, also if it was erased before. JobNotEnded.
    """
    job = find(db, app_id, job_id)
    if not job.state.is_terminal:
        raise JobNotEnded(
            f"Job '{show_id(job_id)}' is {job.state}: cancel it, and delete it once it has ended.", job_id=job_id
        )
    erase_all(db, [job_id])
    _cancel_shadow(db, job_id)
    for part in of_plugins():
        part.erase(db, job_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextsPart:
    """What a plugin does about the texts of jobs: its `texts.py` has a `PART`.

    Attributes:
        erase: erases what it has of a job's texts, in the transaction of an app's delete.
        awaits: true for ended jobs whose texts it still needs, so that they are not erased for their age.
    """

    erase: Callable[[Connection, UUID], object] = lambda _db, _job_id: None
    awaits: ColumnElement[bool] | None = None


def of_plugins() -> list[TextsPart]:
    """Each plugin's part, in the order of the plugins."""
    return [module.PART for module in parts("texts")]


def _unneeded() -> list[ColumnElement[bool]]:
    return [~part.awaits for part in of_plugins() if part.awaits is not None]


def _cancel_shadow(db: Connection, job_id: UUID) -> None:
    """Cancel the job's shadow, so that the prompt does not outlive the job. `compare_shadows` then erases its texts.

    A waiting shadow ends at once, a running one within seconds.
    """
    its = (jobs.c.shadow_of == job_id, jobs.c.state.not_in(TERMINAL))
    transition(db, UNSTARTED, JobState.CANCELLED, *its)
    running = sa.update(jobs).where(*its, jobs.c.cancel_requested_at.is_(None))
    db.execute(running.values(cancel_requested_at=sa.func.now()))


def forget_old(db: Connection, keep_days: int) -> int:
    """Erase the texts of all apps' jobs that ended over `keep_days` ago, at most `FORGET_JOBS`; returns how many.

    Those that a plugin still needs are kept.
    """
    before = clock.now(db) - timedelta(days=keep_days)
    # Ids sort by time, so jobs with younger ids are not looked up.
    return _forget(db, before, job_texts.c.job_id < oldest_id(before))


def forget_unstored(db: Connection, after_s: float) -> int:
    """Erase the texts of requests with `store=false`, `after_s` after their jobs' ends; returns how many.

    Their delivery has failed, or no client asked for them.
    """
    return _forget(db, clock.now(db) - timedelta(seconds=after_s), job_texts.c.is_unstored)


def _forget(db: Connection, before: datetime, which: sa.ColumnElement[bool]) -> int:
    """Erase these texts, as far as their jobs ended before this time."""
    # A subquery, so that no plan scans `jobs`, which keeps the erased ones: for each text, oldest first, its job is
    # looked up.
    ended_at = sa.select(jobs.c.ended_at).where(jobs.c.id == job_texts.c.job_id, *_unneeded()).scalar_subquery()
    old = sa.select(job_texts.c.job_id).where(which, ended_at < before)
    old_ids = db.scalars(old.order_by(job_texts.c.job_id).limit(FORGET_JOBS)).all()
    if not old_ids:
        return 0
    # Jobs that are just being erased or retried are skipped until the next time.
    free = sa.select(jobs.c.id).where(is_one_of(jobs.c.id, old_ids)).with_for_update(skip_locked=True)
    job_ids = db.scalars(free).all()
    erase_all(db, job_ids)
    return len(job_ids)


def erase_all(db: Connection, job_ids: Sequence[UUID]) -> None:
    """Erase the texts of those of the jobs that have ended, whichever app's."""
    these = sa.update(jobs).where(is_one_of(jobs.c.id, job_ids), jobs.c.state.in_(TERMINAL))
    # The error message is deleted too: if the paid API rejected the prompt, its message may quote it. The code stays.
    db.execute(these.values(erased_at=sa.func.now(), metadata={}, error_message=None))
    db.execute(sa.delete(job_texts).where(is_one_of(job_texts.c.job_id, job_ids)))
    # Last: an entry is made under a lock on the texts, so none can be made after this.
    db.execute(sa.delete(cache_entries).where(is_one_of(cache_entries.c.job_id, job_ids)))
