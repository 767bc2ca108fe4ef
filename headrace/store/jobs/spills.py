"""Jobs in a pool's queue that are about to miss their latest start: find them, and spill them to the paid API."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Row

from headrace.domain.apps import AppLimits
from headrace.domain.jobs import LateJob
from headrace.domain.prompts.payloads import read_payload
from headrace.domain.queues import OVERFLOW, Overflow, Route, Ticket, queue_name
from headrace.domain.states import JobState
from headrace.store.jobs import ticket_of
from headrace.store.jobs.conditions import IS_QUEUED, IS_UNSTARTED
from headrace.store.jobs.confinements import IS_HELD
from headrace.store.jobs.transitions import transition
from headrace.tables import apps, job_texts, jobs

#: The `route_reason` of a job that the paid API was closed to, and that went back to its own pool, begins with this.
TURNED_AWAY = "from overflow: "


def late(db: Connection, within_s: float, limit: int, *conditions: ColumnElement[bool]) -> Sequence[Row[Any]]:
    """Lock and return the jobs that wait for their pools and must start within `within_s` seconds, the earliest first.

    Left out are: jobs that started before, since `start_by` no longer applies to them; jobs in the first half of their
    `max_wait`; and jobs that the paid API was closed to within the last `within_s` seconds, since they would come back.
    Returns: rows for `late_job`.
    """
    came_back = sa.and_(
        jobs.c.route_reason.startswith(TURNED_AWAY, autoescape=True),
        jobs.c.queued_at > sa.func.now() - timedelta(seconds=within_s),
    )
    statement = (
        sa.select(jobs, job_texts.c.messages, job_texts.c.sampling, apps.c.name, apps.c.day_usd, apps.c.month_usd)
        .join(job_texts, job_texts.c.job_id == jobs.c.id)
        .join(apps, apps.c.id == jobs.c.app_id)
        .where(
            sa.or_(IS_QUEUED, IS_HELD),
            # Redundant, but it lets the planner use the index of unstarted jobs.
            IS_UNSTARTED,
            jobs.c.route == Route.POOL,
            jobs.c.overflow == Overflow.ALLOW,
            jobs.c.started_at.is_(None),
            jobs.c.start_by > sa.func.now(),
            jobs.c.start_by < sa.func.now() + timedelta(seconds=within_s),
            jobs.c.start_by - sa.func.now() < sa.func.now() - jobs.c.created_at,
            ~came_back,
            *conditions,
        )
        .order_by(jobs.c.start_by)
        .limit(limit)
        .with_for_update(of=jobs, skip_locked=True)
    )
    return db.execute(statement).all()


def late_job(row: Row[Any]) -> LateJob:
    """The job in a row of `late`. Raises: PayloadTooNew. PayloadUnreadable."""
    messages, sampling = read_payload(row.messages, row.sampling)
    return LateJob(
        ticket=ticket_of(row),
        app=row.name,
        limits=AppLimits(day_usd=row.day_usd, month_usd=row.month_usd),
        model=row.model_requested,
        messages=messages,
        sampling=sampling,
        overflow=Overflow(row.overflow),
        max_cost_usd=row.max_cost_usd,
    )


def spill(db: Connection, tickets: Sequence[Ticket], reason: str) -> list[Ticket]:
    """Move these jobs to the paid API's queue of the same lane. The caller has locked them.

    Their `start_by` stays, and their old messages become stale. Returns: the tickets of their new messages.
    """
    # Held jobs wait in no queue.
    these = jobs.c.id.in_([ticket.job_id for ticket in tickets])
    transition(db, [JobState.WAITING], JobState.QUEUED, these, by_key=True, not_before=None)
    moved = []
    for ticket in tickets:
        queue, enqueue_no = queue_name(OVERFLOW, ticket.lane), ticket.enqueue_no + 1
        this = sa.update(jobs).where(jobs.c.id == ticket.job_id, jobs.c.enqueue_no == ticket.enqueue_no)
        values = {"queue": queue, "route": Route.OVERFLOW, "route_reason": reason, "queued_at": sa.func.now()}
        overflow_at = sa.func.coalesce(jobs.c.overflow_at, sa.func.now())
        db.execute(this.values(enqueue_no=enqueue_no, overflow_at=overflow_at, **values))
        moved.append(replace(ticket, queue=queue, enqueue_no=enqueue_no))
    return moved
