"""The autoscaler's alerts: what lasts, since when, and whether the operator has been told.

The rows outlive a restart, so that an alert is sent once, and its end once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection, Row
from sqlalchemy.dialects.postgresql import ARRAY, insert

from headrace.domain.hosts import HostEnd
from headrace.domain.queues import lane_queues
from headrace.tables import decisions, hosts, queue_samples, scaling_alerts

#: A condition that no sweep has seen for so long begins anew: it may have ended meanwhile.
UNSEEN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class AlertKey:
    """What an alert is about. Attributes: subject: a host's id; empty for the pool itself."""

    kind: str
    pool: str
    subject: str = ""


def note_seen(db: Connection, key: AlertKey) -> datetime:
    """Note that a condition holds; returns since when it has."""
    row = {"kind": key.kind, "pool": key.pool, "subject": key.subject}
    added = insert(scaling_alerts).values(**row, began_at=sa.func.now(), seen_at=sa.func.now())
    began_at = scaling_alerts.c.began_at
    was_unseen = sa.and_(scaling_alerts.c.alerted_at.is_(None), scaling_alerts.c.seen_at < sa.func.now() - UNSEEN)
    seen = {"seen_at": sa.func.now(), "began_at": sa.case((was_unseen, sa.func.now()), else_=began_at)}
    statement = added.on_conflict_do_update(index_elements=list(row), set_=seen).returning(began_at)
    since: datetime = db.execute(statement).scalar_one()
    return since


def tell(db: Connection, key: AlertKey) -> bool:
    """Note that the operator is told. Returns: False if that was done before."""
    told = sa.update(scaling_alerts).where(*_of(key), scaling_alerts.c.alerted_at.is_(None))
    return db.execute(told.values(alerted_at=sa.func.now()).returning(scaling_alerts.c.kind)).first() is not None


def end(db: Connection, key: AlertKey) -> bool:
    """Note that a condition has ended. Returns: whether the operator had been told of it."""
    deleted = sa.delete(scaling_alerts).where(*_of(key)).returning(scaling_alerts.c.alerted_at)
    alerted_at = db.scalar(deleted)
    return alerted_at is not None


def _of(key: AlertKey) -> tuple[sa.ColumnElement[bool], ...]:
    row = scaling_alerts.c
    return row.kind == key.kind, row.pool == key.pool, row.subject == key.subject


def lasting(db: Connection) -> list[AlertKey]:
    """What lasts, by the last sweep."""
    row = scaling_alerts.c
    return [AlertKey(**each._mapping) for each in db.execute(sa.select(row.kind, row.pool, row.subject))]


def told(db: Connection) -> dict[tuple[str, str], int]:
    """How many conditions the operator is alerted to now, by kind and pool."""
    row = scaling_alerts.c
    counted = sa.select(row.kind, row.pool, sa.func.count().label("alerts")).where(row.alerted_at.is_not(None))
    return {(each.kind, each.pool): each.alerts for each in db.execute(counted.group_by(row.kind, row.pool))}


def observed_at(db: Connection, pool: str) -> datetime | None:
    """When the pool was last observed."""
    # One step in the index for each queue: over several queues, max(at) alone would read all their samples.
    listed = sa.select(sa.func.unnest(sa.cast(list(lane_queues(pool)), ARRAY(sa.Text))).label("queue")).subquery(
        "listed"
    )
    row = queue_samples.c
    last = sa.select(row.at).where(row.queue == listed.c.queue).order_by(row.at.desc()).limit(1).lateral("last")
    newest: datetime | None = db.scalar(sa.select(sa.func.max(last.c.at)).select_from(listed.join(last, sa.true())))
    return newest


def demand(db: Connection, pool: str, since: timedelta) -> tuple[int, int, int]:
    """The jobs that wanted the pool lately: all, those that were refused, and those that the paid API got."""
    sums = (sa.func.coalesce(sa.func.sum(queue_samples.c[name]), 0) for name in ("offered", "refused", "spilled"))
    lately = (queue_samples.c.queue.in_(lane_queues(pool)), queue_samples.c.at > sa.func.now() - since)
    offered, refused, spilled = db.execute(sa.select(*sums).where(*lately)).one()
    return int(offered), int(refused), int(spilled)


def last_hosts(db: Connection, pool: str) -> int | None:
    """The hosts of the pool, ready and on their way, at its last decision."""
    newest = sa.select(decisions.c.hosts).where(decisions.c.pool == pool).order_by(decisions.c.at.desc()).limit(1)
    count: int | None = db.scalar(newest)
    return count


def written_off(db: Connection, pools: Sequence[str], within: timedelta) -> list[Row[tuple[str, str, str, datetime]]]:
    """The hosts that were written off lately: id, pool, instance type, and when they were ordered."""
    row = hosts.c
    lately = (row.end_reason == HostEnd.WRITTEN_OFF, row.drain_at > sa.func.now() - within, row.pool.in_(pools))
    columns = (row.id, row.pool, row.instance_type, row.requested_at)
    return list(db.execute(sa.select(*columns).where(*lately).order_by(row.id)))
