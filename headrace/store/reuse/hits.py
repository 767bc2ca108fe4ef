"""Hits of the semantic cache: jobs that end with an entry's answer while they wait in their queues."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Update
from sqlalchemy.dialects.postgresql import ARRAY

from headrace.domain.queues import Overflow, Ticket
from headrace.domain.states import JobState
from headrace.store.jobs import followers, ticket_of
from headrace.store.jobs.cached_answers import serves
from headrace.store.jobs.transitions import moving
from headrace.store.reuse.questions import WAITS_FOR_ITS_START
from headrace.store.rows import few, rows_sent
from headrace.tables import job_texts, jobs

_SOURCE = jobs.alias("source")
#: Columns that the job takes over from the one whose answer it is given. Its prompt is its own.
_TAKEN = ("model_served", "finish_reason", "output_tokens", "reasoning_tokens")


@dataclass(frozen=True, slots=True)
class Hit:
    """A queued job, and the job whose answer it is to be given.

    Attributes:
        keep_s: how old that answer may be, in seconds.
    """

    job_id: UUID
    app_id: UUID
    source_id: UUID
    keep_s: float
    overflow: Overflow


@dataclass(frozen=True, slots=True)
class Served:
    """A job that has ended with an answer of the cache."""

    ticket: Ticket
    has_webhook: bool


def serve(db: Connection, hits: Sequence[Hit]) -> list[Served]:
    """End queued jobs with the answers that were found for them, book them, and write their webhooks.

    The compare-and-set is that of a claim: a job that a worker has claimed is left out. So is one whose answer was
    erased, or grew too old, since the search. Call it in one transaction.
    """
    there = followers.hold_answers(db, {hit.source_id for hit in hits})
    rows = [_row(hit) for hit in sorted(hits, key=lambda each: each.job_id) if hit.source_id in there]
    if not rows:
        return []
    moved = db.execute(_serve().returning(jobs), {"rows": rows}).all()
    ended = followers.give_answers(db, moved)
    # It serves no identical job: its answer is another question's.
    these = job_texts.c.job_id == sa.any_(sa.cast(ended, ARRAY(sa.Uuid)))
    db.execute(sa.update(job_texts).where(these).values(cache_key=None))
    return [Served(ticket_of(row), row.webhook_url is not None) for row in moved]


def _row(hit: Hit) -> dict[str, Any]:
    ids = {"id": str(hit.job_id), "app_id": str(hit.app_id), "source_id": str(hit.source_id)}
    return {**ids, "keep_s": hit.keep_s, "overflow": hit.overflow}


def _serve() -> Update:
    columns = [sa.column(name, sa.Uuid) for name in ("id", "app_id", "source_id")]
    given = few(rows_sent("rows", [*columns, sa.column("keep_s", sa.Double), sa.column("overflow", sa.Text)])).cte(
        "given"
    )
    taken: dict[str, Any] = {name: _SOURCE.c[name] for name in _TAKEN}
    return moving(
        [JobState.QUEUED],
        JobState.SUCCEEDED,
        jobs.c.id == given.c.id,
        jobs.c.app_id == given.c.app_id,
        WAITS_FOR_ITS_START,
        jobs.c.start_by > sa.func.now(),
        sa.or_(jobs.c.finish_by.is_(None), jobs.c.finish_by > sa.func.now()),
        _SOURCE.c.id == given.c.source_id,
        serves(given.c, _SOURCE),
        by_key=True,
        cache="semantic",
        served_by_job=given.c.source_id,
        cached_tokens=0,
        **taken,
    )
