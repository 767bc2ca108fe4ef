"""Deliveries: the outbox of webhooks. A row is written where a job ends, or a budget comes to its end; `deliver`
empties it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import ARRAY

from headrace.jobs import JobState, new_id
from headrace.tables import apps, deliveries, jobs
from headrace.webhooks import job_data

#: A try that was begun and never reported (its worker died) is begun again after this long.
TRY_LEASE_S = 60.0
#: A due delivery whose message was sent this long ago is sent again: the message was lost.
REPUBLISH_AFTER_S = 30.0
#: Deliveries one sweep sends.
SWEEP_ROWS = 500


@dataclass(frozen=True, slots=True)
class Delivery:
    """One try at telling a receiver of something.

    Attributes:
        secret: of the app whose webhook it is; None for the operator's.
        tries: counts this one.
        data: what has happened, and `at` when.
    """

    id: UUID
    event: str
    url: str
    secret: str | None
    tries: int
    data: Mapping[str, Any]
    at: datetime


def add(db: Connection, event: str, url: str, data: Mapping[str, Any]) -> None:
    """Tell the operator of something that is no job's end. `redeliver` sends it, a sweep after the commit."""
    db.execute(sa.insert(deliveries).values(id=new_id(), event=event, url=url, data=dict(data)))


def begin_try(db: Connection, delivery_id: UUID) -> Delivery | None:
    """Take a due delivery for one try; None when it is done, not due yet, or in another worker's hands."""
    begun = (
        sa.update(deliveries)
        .where(deliveries.c.id == delivery_id, deliveries.c.state == "pending", deliveries.c.next_at <= sa.func.now())
        .values(tries=deliveries.c.tries + 1, next_at=sa.func.now() + timedelta(seconds=TRY_LEASE_S))
        .returning(*(deliveries.c[name] for name in ("id", "event", "url", "tries", "job_id", "data", "created_at")))
    )
    row = db.execute(begun).first()
    if row is None:
        return None
    if row.job_id is None:
        return Delivery(row.id, row.event, row.url, None, row.tries, row.data, row.created_at)
    job = db.execute(
        sa.select(jobs.c.state, jobs.c.ended_at, apps.c.webhook_secret)
        .join(apps, apps.c.id == jobs.c.app_id)
        .where(jobs.c.id == row.job_id)
    ).one()
    data = job_data(row.job_id, JobState(job.state))
    return Delivery(row.id, row.event, row.url, job.webhook_secret, row.tries, data, job.ended_at)


def record_success(db: Connection, delivery: Delivery, status: int) -> None:
    """The receiver said 2xx."""
    values = {"state": "delivered", "delivered_at": sa.func.now(), "last_status": status, "last_error": None}
    db.execute(sa.update(deliveries).where(_this_try(delivery)).values(**values))


def record_failure(
    db: Connection, delivery: Delivery, error: str, *, status: int | None, retry_in_s: float | None
) -> None:
    """The try failed; None for `retry_in_s` gives the delivery up."""
    values: dict[str, object] = {"last_status": status, "last_error": error[:500]}
    if retry_in_s is None:
        values["state"] = "failed"
    else:
        values |= {"next_at": sa.func.now() + timedelta(seconds=retry_in_s), "published_at": None}
    db.execute(sa.update(deliveries).where(_this_try(delivery)).values(**values))


def _this_try(delivery: Delivery) -> sa.ColumnElement[bool]:
    """True while no later try has begun, so that a slow worker cannot overwrite a newer one's report."""
    return sa.and_(
        deliveries.c.id == delivery.id, deliveries.c.tries == delivery.tries, deliveries.c.state == "pending"
    )


def publish(db: Connection, job_ids: list[UUID]) -> list[UUID]:
    """The pending deliveries of jobs that have just ended, marked as published: the caller sends their messages."""
    statement = (
        sa.update(deliveries)
        .where(deliveries.c.job_id == sa.any_(sa.cast(job_ids, ARRAY(sa.Uuid))), deliveries.c.state == "pending")
        .values(published_at=sa.func.now())
    )
    return list(db.scalars(statement.returning(deliveries.c.id)))


def publish_due(db: Connection) -> list[UUID]:
    """Due deliveries that nobody was sent for lately, marked as published now: the caller sends their messages."""
    stale = sa.func.now() - timedelta(seconds=REPUBLISH_AFTER_S)
    due = (
        sa.select(deliveries.c.id)
        .where(deliveries.c.state == "pending", deliveries.c.next_at <= sa.func.now())
        .where(sa.or_(deliveries.c.published_at.is_(None), deliveries.c.published_at < stale))
        .order_by(deliveries.c.next_at)
        .limit(SWEEP_ROWS)
        .with_for_update(skip_locked=True)
    )
    statement = sa.update(deliveries).where(deliveries.c.id.in_(due)).values(published_at=sa.func.now())
    return list(db.scalars(statement.returning(deliveries.c.id)))
