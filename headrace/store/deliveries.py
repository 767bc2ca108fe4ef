"""Deliveries: the outbox of webhooks. A row is written where a job ends, or a budget comes to its end; `outbox.pull`
takes what is due, and how each try went is recorded here.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.jobs import new_id
from headrace.store.outbox import Delivery
from headrace.tables import deliveries


def add(db: Connection, event: str, url: str, data: Mapping[str, Any]) -> None:
    """Tell the operator of something that is no job's end. It is due with the commit."""
    db.execute(sa.insert(deliveries).values(id=new_id(), event=event, url=url, data=dict(data)))


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
        values["next_at"] = sa.func.now() + timedelta(seconds=retry_in_s)
    db.execute(sa.update(deliveries).where(_this_try(delivery)).values(**values))


def _this_try(delivery: Delivery) -> sa.ColumnElement[bool]:
    """True while no later try has begun, so that a slow worker cannot overwrite a newer one's report."""
    return sa.and_(
        deliveries.c.id == delivery.id, deliveries.c.tries == delivery.tries, deliveries.c.state == "pending"
    )
