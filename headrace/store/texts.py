"""The texts of jobs that have ended: erased when their app says so. What a job used and cost stays."""

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.errors import JobNotEnded
from headrace.jobs import TERMINAL, show_id
from headrace.store.jobs import find
from headrace.tables import job_texts, jobs


def erase(db: Connection, app_id: UUID, job_id: UUID) -> None:
    """Forget what an ended job's caller wrote and what was answered; what it used and cost stays.

    Raises: NotFound, also when it was erased before. JobNotEnded.
    """
    job = find(db, app_id, job_id)
    if not job.state.is_terminal:
        raise JobNotEnded(
            f"Job '{show_id(job_id)}' is {job.state}: cancel it, and delete it once it has ended.", job_id=job_id
        )
    this = (jobs.c.id == job_id, jobs.c.state.in_(TERMINAL))
    # The message is the paid API's own, where it rejects a prompt, and may quote it. The code says enough.
    db.execute(sa.update(jobs).where(*this).values(erased_at=sa.func.now(), metadata={}, error_message=None))
    db.execute(sa.delete(job_texts).where(job_texts.c.job_id == job_id))
