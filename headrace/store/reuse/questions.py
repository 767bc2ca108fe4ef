"""Questions: what the semantic cache reads of the jobs that it looks up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row
from sqlalchemy.dialects.postgresql import ARRAY

from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.payloads import read_payload
from headrace.domain.queues import Overflow
from headrace.domain.states import JobState
from headrace.store.bad_rows import BadRows
from headrace.tables import apps, job_texts, jobs


@dataclass(frozen=True, slots=True)
class Question:
    """A job that has an answer of its own, or may yet get one.

    Attributes:
        cache_s, max_error: its app's own settings, as in `App`.
        waits: True while the job waits for its first start, and may be served.
    """

    job_id: UUID
    app_id: UUID
    pool: str
    model: str
    adapter: str | None
    messages: tuple[Message, ...]
    sampling: Sampling
    overflow: Overflow
    cache_s: int | None
    max_error: float | None
    waits: bool


#: The states of such a job.
_OPEN = (JobState.QUEUED, JobState.RUNNING, JobState.WAITING, JobState.SUCCEEDED)
#: A job that has started may have readers of a part of its own answer.
WAITS_FOR_ITS_START = sa.and_(jobs.c.started_at.is_(None), jobs.c.cancel_requested_at.is_(None))


def read(db: Connection, job_ids: Sequence[UUID]) -> list[Question]:
    """Those of the jobs that may become entries: neither failed, nor given another job's answer.

    Leaves out, and logs, those whose prompts cannot be read.
    """
    these = jobs.c.id == sa.any_(sa.cast(list(job_ids), ARRAY(sa.Uuid)))
    statement: sa.Select[Any] = (
        sa.select(
            *(jobs.c[name] for name in ("id", "app_id", "pool", "model_requested", "adapter", "overflow")),
            *(apps.c.cache_s, apps.c.max_error, job_texts.c.messages, job_texts.c.sampling),
            sa.and_(jobs.c.state + "" == JobState.QUEUED, WAITS_FOR_ITS_START).label("waits"),
        )
        .join(job_texts, job_texts.c.job_id == jobs.c.id)
        .join(apps, apps.c.id == jobs.c.app_id)
        .where(these, (jobs.c.state + "").in_(_OPEN), jobs.c.served_by_job.is_(None))
        .order_by(jobs.c.id)
    )
    return BadRows("look_up").readable(db.execute(statement).all(), _question, len(job_ids))


def _question(row: Row[Any]) -> Question:
    messages, sampling = read_payload(row.messages, row.sampling)
    return Question(
        row.id,
        row.app_id,
        row.pool,
        row.model_requested,
        row.adapter,
        messages,
        sampling,
        Overflow(row.overflow),
        row.cache_s,
        row.max_error,
        row.waits,
    )
