"""Shadows: jobs of Headrace's own that answer an app's job once more in another pool, after it has its answer.

A column says how far one is. Of an app's job, `shadow` is `wanted`, then `started` or `skipped`. Of the shadow itself
it is `open`, then `agrees`, `differs` or `failed`. A shadow belongs to an app of its own, so it is in no list and no
bill of the other app. Its texts are erased when it has been compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from headrace.domain.ids import new_id
from headrace.domain.queues import Lane, Overflow, Route
from headrace.domain.states import JobState
from headrace.store.jobs import texts
from headrace.tables import job_texts, jobs

#: The app to which shadows belong. `headrace apps limit` gives it a budget of its own.
APP = "headrace-shadow"
#: Shadows under way at once, so that they take no more than a few slots and places.
MOST_OPEN = 32
#: The most jobs that one sweep looks at.
SWEEP_ROWS = 100
#: A shadow is started within this time after its job's end, or not at all.
PATIENCE = timedelta(minutes=10)
#: How long a shadow waits for a slot, in seconds.
MAX_WAIT_S = 600.0

Verdict = Literal["agrees", "differs", "failed"]

#: Literals, as in the index's predicate.
_WANTED, _OPEN = (sa.literal(word, sa.Text, literal_execute=True) for word in ("wanted", "open"))
#: What a shadow takes over from its job.
_COPIED = ("prompt_tokens", "max_tokens", "max_cost_usd")


@dataclass(frozen=True, slots=True)
class Shadow:
    """Where a shadow runs."""

    pool: str
    model: str
    queue: str
    route: Route
    overflow: Overflow


def wanted(db: Connection) -> Sequence[Row[Any]]:
    """Lock and return ended jobs that want a shadow, oldest first, as many as there is room for.

    With `is_old`: it has ended too long ago. `has_answer`: its texts are there.
    """
    under_way = sa.select(sa.func.count()).where(jobs.c.shadow == _OPEN, jobs.c.ended_at.is_(None))
    room = MOST_OPEN - int(db.scalar(under_way) or 0)
    if room <= 0:
        return []
    statement = (
        sa.select(
            jobs,
            (jobs.c.ended_at < sa.func.now() - PATIENCE).label("is_old"),
            job_texts.c.answer.is_not(None).label("has_answer"),
        )
        .outerjoin(job_texts, job_texts.c.job_id == jobs.c.id)
        .where(jobs.c.shadow == _WANTED, jobs.c.ended_at.is_not(None))
        .order_by(jobs.c.ended_at)
        .limit(room)
        .with_for_update(of=jobs, skip_locked=True)
    )
    return db.execute(statement).all()


def skip(db: Connection, job_id: UUID) -> None:
    """Note that this job gets no shadow."""
    db.execute(sa.update(jobs).where(jobs.c.id == job_id).values(shadow="skipped"))


def start(db: Connection, row: Row[Any], where: Shadow, app_id: UUID) -> UUID | None:
    """Insert the shadow of a job as `queued`; `publish_due` pushes its message.

    Args: app_id: of `APP`.
    Returns: its id; None if the job's texts were erased meanwhile, and it gets no shadow.
    """
    its_texts = sa.select(job_texts.c.messages, job_texts.c.sampling).where(job_texts.c.job_id == row.id)
    found = db.execute(its_texts.with_for_update(read=True, key_share=True)).first()
    if found is None:
        skip(db, row.id)
        return None
    shadow_id = new_id()
    values = {name: getattr(row, name) for name in _COPIED} | {
        "id": shadow_id,
        "app_id": app_id,
        "state": JobState.QUEUED,
        "lane": Lane.BATCH,
        "pool": where.pool,
        "queue": where.queue,
        "route": where.route,
        "route_reason": f"shadow of rule '{row.rule}'",
        "overflow": where.overflow,
        "model_requested": where.model,
        "background": True,
        "queued_at": sa.func.now(),
        "start_by": sa.func.now() + timedelta(seconds=MAX_WAIT_S),
        "overflow_at": sa.func.now() if where.route is Route.OVERFLOW else None,
        "shadow": "open",
        "shadow_of": row.id,
    }
    db.execute(sa.insert(jobs).values(values))
    copied = {"messages": found.messages, "sampling": found.sampling}
    db.execute(sa.insert(job_texts).values(job_id=shadow_id, **copied))
    db.execute(sa.update(jobs).where(jobs.c.id == row.id).values(shadow="started"))
    return shadow_id


def ended(db: Connection) -> Sequence[Row[Any]]:
    """Lock and return shadows that have ended and are not compared: id, state, both answers, and `response_format`.

    An answer is None if there is none, or its texts were erased.
    """
    of_job = job_texts.alias("of_job")
    statement: sa.Select[Any] = (
        sa.select(
            jobs.c.id,
            jobs.c.state,
            job_texts.c.answer,
            of_job.c.answer.label("job_answer"),
            of_job.c.sampling["response_format"].label("response_format"),
        )
        .outerjoin(job_texts, job_texts.c.job_id == jobs.c.id)
        .outerjoin(of_job, of_job.c.job_id == jobs.c.shadow_of)
        .where(jobs.c.shadow == _OPEN, jobs.c.ended_at.is_not(None))
        .order_by(jobs.c.ended_at)
        .limit(SWEEP_ROWS)
        .with_for_update(of=jobs, skip_locked=True)
    )
    return db.execute(statement).all()


def close(db: Connection, verdicts: Sequence[tuple[UUID, Verdict]]) -> None:
    """Note what the comparisons found, and erase the shadows' texts."""
    for shadow_id, verdict in verdicts:
        db.execute(sa.update(jobs).where(jobs.c.id == shadow_id).values(shadow=verdict))
    texts.erase_all(db, [shadow_id for shadow_id, _ in verdicts])
