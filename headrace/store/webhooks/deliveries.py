"""Deliveries: the outbox of webhooks. A row is written when a job ends or a budget reaches a threshold. `outbox.pull`
takes due rows; this module records the result of each try.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from headrace.domain.deliveries import Delivery
from headrace.domain.ids import new_id, oldest_id
from headrace.errors import NotFound
from headrace.store import clock
from headrace.store.webhooks.outbox import GONE, GONE_STATUS, IS_FAILED, IS_PENDING, receiver_digest
from headrace.tables import apps, deliveries, gone_receivers
from headrace.tables.webhooks import APP_KEY, RECEIVER

#: The most deliveries of a gone receiver that fail at once with its 410; the others fail when they are due.
GONE_ROWS = 1000
#: The most deliveries, or receivers, that one sweep deletes. A sweep every 5 s keeps up with 1,000 jobs a second.
FORGET_ROWS = 5000

#: The most deliveries that a list of one app reads.
LOOK_ROWS = 100_000

_ID = re.compile("(?:evt_)?([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class ListedDelivery:
    """A delivery as operators see it.

    Attributes:
        app: its app's name; None for the operator's webhook.
        last_status, last_error: of its last try.
        next_at: when the next try is due, or the lease of the running try ends; None once the delivery has ended.
    """

    id: UUID
    app: str | None
    job_id: UUID | None
    event: str
    url: str
    state: str
    tries: int
    last_status: int | None
    last_error: str | None
    created_at: datetime
    next_at: datetime | None


def add(db: Connection, event: str, url: str, data: Mapping[str, Any]) -> None:
    """Add an operator's webhook, which is not about a job. It is due once the transaction commits."""
    db.execute(sa.insert(deliveries).values(id=new_id(), event=event, url=url, data=dict(data)))


def record_success(db: Connection, delivery: Delivery, status: int) -> None:
    """Record a 2xx answer. It counts even if the receiver has answered 410 to another delivery meanwhile."""
    values = {"state": "delivered", "delivered_at": sa.func.now(), "last_status": status, "last_error": None}
    this_try = sa.and_(deliveries.c.id == delivery.id, deliveries.c.tries == delivery.tries)
    db.execute(sa.update(deliveries).where(this_try).values(**values))


def record_failure(
    db: Connection, delivery: Delivery, error: str, *, status: int | None, retry_in_s: float | None
) -> None:
    """Record a failed try. `retry_in_s`: until the next try; None if the delivery has failed."""
    values: dict[str, object] = {"last_status": status, "last_error": error[:500]}
    if retry_in_s is None:
        values["state"] = "failed"
    else:
        values["next_at"] = sa.func.now() + timedelta(seconds=retry_in_s)
    # Only if no later try has begun, so that a slow worker cannot overwrite a newer worker's report.
    this_try = sa.and_(
        deliveries.c.id == delivery.id, deliveries.c.tries == delivery.tries, deliveries.c.state == "pending"
    )
    db.execute(sa.update(deliveries).where(this_try).values(**values))


def record_gone(db: Connection, delivery: Delivery) -> None:
    """Record a 410 answer: the app's waiting and later deliveries to this URL fail.

    This ends with `forget_gone` or with an operator's retry.
    """
    digest = receiver_digest(delivery.app_id, delivery.url)
    mark = insert(gone_receivers).values(digest=digest, app_id=delivery.app_id, url=delivery.url)
    db.execute(mark.on_conflict_do_nothing())
    is_theirs = sa.text(f"{APP_KEY} = :app AND {RECEIVER} = :receiver").bindparams(
        app=delivery.app_id or UUID(int=0), receiver=delivery.receiver
    )
    waiting = (
        sa.select(deliveries.c.id)
        .where(IS_PENDING, deliveries.c.id != delivery.id, deliveries.c.url == delivery.url)
        .where(is_theirs)
        .limit(GONE_ROWS)
        .with_for_update(skip_locked=True)
    )
    values = {"state": "failed", "last_status": GONE_STATUS, "last_error": GONE}
    db.execute(sa.update(deliveries).where(deliveries.c.id.in_(waiting)).values(**values))


def newest(db: Connection, *, is_failed: bool, app_id: UUID | None, limit: int) -> list[ListedDelivery]:
    """The newest deliveries, of one app or of all. Those of one app are looked for among the `LOOK_ROWS` newest.

    Args: is_failed: True for failed ones only.
    """
    near = sa.select(deliveries).order_by(deliveries.c.id.desc()).limit(LOOK_ROWS)
    if is_failed:
        near = near.where(IS_FAILED)
    each = near.subquery().c
    columns = (each[name] for name in ("id", "job_id", "event", "url", "state", "tries", "created_at"))
    next_at = sa.case((each.state == "pending", each.next_at), else_=None).label("next_at")
    statement = sa.select(*columns, each.last_status, each.last_error, next_at, apps.c.name.label("app"))
    statement = statement.outerjoin(apps, apps.c.id == each.app_id)
    if app_id is not None:
        statement = statement.where(each.app_id == app_id)
    found = db.execute(statement.order_by(each.id.desc()).limit(limit)).mappings()
    return [ListedDelivery(**row) for row in found]


def retry(db: Connection, texts: Sequence[str]) -> list[UUID]:
    """Try deliveries again from now on, with the whole schedule of retries. Their receivers no longer count as gone.

    Args:
        texts: their ids, as in the header `webhook-id`.
    Raises: NotFound: one of them does not exist; none is then tried again.
    """
    ids = [_read_id(text) for text in texts]
    values = {"state": "pending", "tries_before": deliveries.c.tries, "next_at": sa.func.now(), "delivered_at": None}
    changed = sa.update(deliveries).where(deliveries.c.id.in_(ids)).values(**values)
    rows = db.execute(changed.returning(deliveries.c.id, deliveries.c.app_id, deliveries.c.url)).all()
    found = {row.id for row in rows}
    for delivery_id, text in zip(ids, texts, strict=True):
        if delivery_id not in found:
            raise _no_such(text)
    digests = {receiver_digest(row.app_id, row.url) for row in rows}
    db.execute(sa.delete(gone_receivers).where(gone_receivers.c.digest.in_(digests)))
    return ids


def _read_id(text: str) -> UUID:
    match = _ID.fullmatch(text.lower())
    if match is None:
        raise _no_such(text)
    return UUID(hex=match[1])


def _no_such(text: str) -> NotFound:
    return NotFound(f"No webhook delivery has the id '{text[:60]}': 'headrace deliveries' lists the newest.")


def oldest_due(db: Connection, most: int) -> tuple[int, float]:
    """How many deliveries are due, up to `most`, and for how many seconds the oldest has been due."""
    due = (
        sa.select(deliveries.c.next_at)
        .where(IS_PENDING, deliveries.c.next_at <= sa.func.now())
        .order_by(deliveries.c.next_at)
        .limit(most)
        .subquery()
    )
    late_s = sa.func.extract("epoch", sa.func.now() - sa.func.min(due.c.next_at))
    number, seconds = db.execute(sa.select(sa.func.count(), sa.func.coalesce(late_s, 0)).select_from(due)).one()
    return number, float(seconds)


def forget_old(db: Connection, keep_days: int) -> int:
    """Delete deliveries that ended more than `keep_days` ago, at most `FORGET_ROWS`; returns how many.

    Ids sort by time, so that younger ones are not read.
    """
    before = clock.now(db) - timedelta(days=keep_days)
    ended_at = sa.func.coalesce(deliveries.c.delivered_at, deliveries.c.next_at)
    old = (
        sa.select(deliveries.c.id)
        .where(deliveries.c.id < oldest_id(before), deliveries.c.state != "pending", ended_at < before)
        .order_by(deliveries.c.id)
        .limit(FORGET_ROWS)
        .with_for_update(skip_locked=True)
    )
    ids = db.scalars(old).all()
    if ids:
        db.execute(sa.delete(deliveries).where(deliveries.c.id == sa.any_(sa.cast(ids, sa.ARRAY(sa.Uuid)))))
    return len(ids)


def forget_gone(db: Connection, keep_days: int) -> int:
    """Delete receivers that answered 410 more than `keep_days` ago, at most `FORGET_ROWS`; returns how many.

    The next delivery to such a receiver is tried; another 410 marks it again.
    """
    old = (
        sa.select(gone_receivers.c.digest)
        .where(gone_receivers.c.created_at < sa.func.now() - timedelta(days=keep_days))
        .order_by(gone_receivers.c.created_at)
        .limit(FORGET_ROWS)
        .with_for_update(skip_locked=True)
    )
    digests = db.scalars(old).all()
    if digests:
        these = gone_receivers.c.digest == sa.any_(sa.cast(digests, sa.ARRAY(sa.LargeBinary)))
        db.execute(sa.delete(gone_receivers).where(these))
    return len(digests)
