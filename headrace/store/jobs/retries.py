"""Retries by operators: a failed job is run again as a new job.

A job ends once, with one result and one bill. Its retry is another job, whose `retry_of` names it.
"""

from collections.abc import Iterable
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.domain.ids import new_id, show_id
from headrace.domain.queues import Route
from headrace.domain.states import JobState
from headrace.errors import InvalidRequest, JobNotEnded, NotFound
from headrace.tables import job_retries, job_texts, jobs

#: The columns that the new job copies. Suspicion is one of them: a job that may have killed an engine runs alone again.
_COPIED = (
    *("app_id", "lane", "pool", "queue", "route", "overflow", "model_requested", "adapter", "end_user", "metadata"),
    *("webhook_url", "stream", "max_cost_usd", "max_tokens", "n", "suspicion"),
)
_TEXTS = ("messages", "sampling", "is_unstored")
#: How jobs end that have not failed, in an error's words.
_ENDS = {"succeeded": "succeeded", "cancelled": "been cancelled", "expired": "expired"}


def retry(db: Connection, job_ids: Iterable[UUID]) -> dict[UUID, UUID]:
    """Create a new `queued` job for each failed one; `publish_due` puts its message into the list.

    It has the same times to wait and to run as the old job. No request waits for it, and no limit applies to it.

    Returns: the new job of each old one.
    Raises: NotFound, JobNotEnded, InvalidRequest: one of the jobs cannot be retried, and none was.
    """
    olds = list(dict.fromkeys(job_ids))
    # Locked first, in one order, so that the second of two operators sees the first one's new jobs.
    db.execute(sa.select(jobs.c.id).where(jobs.c.id.in_(olds)).order_by(jobs.c.id).with_for_update())
    _check(db, olds)
    news = {old: new_id() for old in olds}
    for old, new in news.items():
        _copy(db, old, new)
    return news


def _check(db: Connection, job_ids: Iterable[UUID]) -> None:
    is_erased = job_texts.c.job_id.is_(None).label("is_erased")
    facts = (
        sa.select(jobs.c.id, jobs.c.state, is_erased, job_retries.c.retried_as)
        .outerjoin(job_texts, job_texts.c.job_id == jobs.c.id)
        .outerjoin(job_retries, job_retries.c.job_id == jobs.c.id)
        .where(jobs.c.id.in_(job_ids))
    )
    found = {row.id: row for row in db.execute(facts)}
    for job_id in job_ids:
        job = f"Job '{show_id(job_id)}'"
        row = found.get(job_id)
        if row is None:
            raise NotFound(f"No job with id '{show_id(job_id)}'.")
        if not JobState(row.state).is_terminal:
            raise JobNotEnded(f"{job} is {row.state}: it has not failed, and may yet succeed.", job_id=job_id)
        if row.state != JobState.FAILED:
            raise InvalidRequest(
                f"{job} has {_ENDS[row.state]}: only one that has failed can be retried.", job_id=job_id
            )
        if row.retried_as is not None:
            again = show_id(row.retried_as)
            raise InvalidRequest(f"{job} was retried already, as '{again}': retry that.", job_id=job_id)
        if row.is_erased:
            raise InvalidRequest(f"{job} was deleted: its prompt is gone.", job_id=job_id)


def _copy(db: Connection, old: UUID, new: UUID) -> None:
    # A background job: the caller of the old one no longer waits.
    values = {
        "id": sa.literal(new, sa.Uuid),
        "state": sa.literal(JobState.QUEUED),
        "route_reason": sa.literal(f"retry of {show_id(old)}"),
        "background": sa.true(),
        "retry_of": jobs.c.id,
        "queued_at": sa.func.now(),
        "overflow_at": sa.case((jobs.c.route == Route.OVERFLOW, sa.func.now())),
        "start_by": sa.func.now() + (jobs.c.start_by - jobs.c.created_at),
        "finish_by": sa.func.now() + (jobs.c.finish_by - jobs.c.created_at),
        "prompt_tokens": sa.func.coalesce(jobs.c.original_tokens, jobs.c.prompt_tokens),
        **{name: jobs.c[name] for name in _COPIED},
    }
    db.execute(sa.insert(jobs).from_select(list(values), sa.select(*values.values()).where(jobs.c.id == old)))
    texts = sa.select(sa.literal(new, sa.Uuid), *(job_texts.c[name] for name in _TEXTS))
    db.execute(sa.insert(job_texts).from_select(["job_id", *_TEXTS], texts.where(job_texts.c.job_id == old)))
