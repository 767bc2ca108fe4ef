"""Scaling decisions, what became of them, and the autoscaler's alerts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection, Row
from sqlalchemy.dialects.postgresql import ARRAY, insert

from headrace.config import Settings
from headrace.domain.fleet import ScalingRecord
from headrace.domain.hosts import HostEnd
from headrace.domain.queues import lane_queues
from headrace.domain.scaling import Action
from headrace.errors import NotFound
from headrace.store import clock
from headrace.store.sql import is_one_of
from headrace.tables import decisions, host_actors, hosts, queue_samples, scaling_alerts

#: How far back `last_applied_at` looks.
LATELY = timedelta(days=1)
#: The most characters of a provider's error that a row keeps.
ERROR_CHARS = 500
#: How far back `runs` looks.
RUNS_OF = timedelta(days=7)

#: Literals, as in the predicate of `ix_decisions_open`: a generic plan with parameters could not use it.
_ACTIVE, _HOLD = (sa.literal(str(word), sa.Text, literal_execute=True) for word in ("active", Action.HOLD))
_OPEN = sa.and_(decisions.c.mode == _ACTIVE, decisions.c.action != _HOLD, decisions.c.applied_at.is_(None))


@dataclass(frozen=True, slots=True)
class MadeDecision:
    """A decision, and what became of it.

    Attributes:
        applied_at: when it took effect; None: not yet, never, or it changes nothing.
        tries: calls of the provider that it led to.
        error: of the last of these that failed; None for none.
    """

    id: int
    at: datetime
    record: ScalingRecord
    applied_at: datetime | None
    tries: int
    error: str | None


@dataclass(frozen=True, slots=True)
class DecisionRun:
    """Decisions in a row that say the same of the same hosts. What else is known is of the last one.

    Attributes:
        first_id, first_at: of the first one.
        count: how many they are.
        hosts: ready and on their way, when each was made.
        tries: calls of the provider that all of them led to.
    """

    id: int
    at: datetime
    first_id: int
    first_at: datetime
    count: int
    action: str
    mode: str
    policy: str
    hosts: int
    target: int
    reason: str
    applied_at: datetime | None
    tries: int
    error: str | None


def add(db: Connection, decision: ScalingRecord) -> int:
    """Write one decision; returns its id."""
    added = sa.insert(decisions).values(**asdict(decision)).returning(decisions.c.id)
    return int(db.execute(added).scalar_one())


def find(db: Connection, decision_id: int) -> ScalingRecord:
    """Read one decision. Raises: NotFound."""
    columns = [decisions.c[field.name] for field in fields(ScalingRecord)]
    row = db.execute(sa.select(*columns).where(decisions.c.id == decision_id)).first()
    if row is None:
        raise NotFound(f"No decision with id {decision_id}.")
    return ScalingRecord(**row._mapping)


def newest(db: Connection, pool: str) -> MadeDecision | None:
    return _newest(db, decisions.c.pool == pool)


def failing(db: Connection, pool: str) -> MadeDecision | None:
    """The last decision for this pool that is not carried out because a call of the provider failed.

    The provider has not accepted all of its orders, or has not ended a host that it was asked to end.
    """
    of_it = hosts.c.decision_id == decisions.c.id
    is_ordered = sa.and_(of_it, hosts.c.drain_at.is_(None), hosts.c.ordered_at.is_(None))
    is_released = sa.and_(hosts.c.drain_decision_id == decisions.c.id, hosts.c.released_at.is_not(None))
    is_live = (hosts.c.pool == pool, hosts.c.ended_at.is_(None))
    is_open = sa.select(hosts.c.id).where(*is_live, sa.or_(is_ordered, is_released)).exists()
    return _newest(db, decisions.c.pool == pool, decisions.c.error.is_not(None), is_open)


def _newest(db: Connection, *conditions: sa.ColumnElement[bool]) -> MadeDecision | None:
    chosen = sa.select(decisions).where(*conditions)
    row = db.execute(chosen.order_by(decisions.c.at.desc(), decisions.c.id.desc()).limit(1)).first()
    if row is None:
        return None
    record = ScalingRecord(**{field.name: row._mapping[field.name] for field in fields(ScalingRecord)})
    return MadeDecision(row.id, row.at, record, row.applied_at, row.tries, row.error)


def runs(db: Connection, pool: str, limit: int) -> list[DecisionRun]:
    """The last decisions for this pool, newest first: those in a row that say the same are one.

    Reads the decisions of `RUNS_OF`.
    """
    row = decisions.c
    in_order = (row.at, row.id)
    alike = (row.action, row.mode, row.policy, row.hosts, row.target)
    differs = sa.or_(*(value.is_distinct_from(sa.func.lag(value).over(order_by=in_order)) for value in alike))
    lately = (row.pool == pool, row.at > sa.func.now() - RUNS_OF)
    marked = sa.select(row.id, row.at, row.tries, sa.case((differs, 1), else_=0).label("begins")).where(*lately)
    each = marked.subquery().c
    number = sa.func.sum(each.begins).over(order_by=(each.at, each.id)).label("run")
    numbered = sa.select(each.id, each.at, each.tries, number).subquery().c
    found = sa.select(
        sa.func.max(numbered.id).label("id"),
        sa.func.min(numbered.id).label("first_id"),
        sa.func.min(numbered.at).label("first_at"),
        sa.func.count().label("count"),
        sa.func.sum(numbered.tries).label("tries"),
    )
    last_runs = found.group_by(numbered.run).order_by(numbered.run.desc()).limit(limit).subquery()
    last = (row.at, *alike, row.reason, row.applied_at, row.error)
    with_last = sa.select(last_runs, *last).join_from(last_runs, decisions, row.id == last_runs.c.id)
    return [DecisionRun(**run._mapping) for run in db.execute(with_last.order_by(row.id.desc()))]


def last_at(db: Connection, pool: str) -> datetime | None:
    """When a decision was last made for this pool; none that a clock which was ahead has dated later than now."""
    of_pool = (decisions.c.pool == pool, decisions.c.at <= sa.func.now())
    newest: datetime | None = db.scalar(sa.select(sa.func.max(decisions.c.at)).where(*of_pool))
    return newest


#: Intervals without a sign of control after which it counts as silent, and the least time.
SILENT_INTERVALS, SILENT_S = 3, 60.0


def silent_after_s(settings: Settings) -> float:
    """Seconds without a sign of control after which it is called silent."""
    return max(SILENT_S, SILENT_INTERVALS * max(settings.observe_every_s, settings.autoscale_every_s))


def silence_notice(db: Connection, settings: Settings) -> str | None:
    """Since when no control process was seen, and what that means; None if one was seen lately."""
    seen_at = control_seen_at(db)
    if seen_at is not None and clock.now(db) - seen_at < timedelta(seconds=silent_after_s(settings)):
        return None
    when = "yet" if seen_at is None else f"since {seen_at:%Y-%m-%dT%H:%M:%SZ}"
    return (
        f"No control process was seen {when}: no job expires or is repaired, and no host is ordered or ended. Are "
        "'control' and 'beat' running?"
    )


def control_seen_at(db: Connection) -> datetime | None:
    """When a control process last showed itself: by a sample, a decision, or a claim of a pool. None for never."""
    now = sa.func.now()
    signs = (sa.select(sa.func.max(at)).where(at <= now) for at in (queue_samples.c.at, decisions.c.at))
    # A claim holds for some time ahead.
    claimed = sa.select(sa.func.max(sa.func.least(host_actors.c.until, now)))
    newest = sa.func.greatest(*(each.scalar_subquery() for each in (*signs, claimed)))
    seen: datetime | None = db.scalar(sa.select(newest))
    return seen


def targets(db: Connection, pools: Sequence[str]) -> dict[str, int]:
    """The hosts that the last decision on each of these pools wants; a pool without a decision is absent."""
    own = decisions.c
    listed = sa.select(sa.func.unnest(sa.cast(list(pools), ARRAY(sa.Text))).label("pool")).subquery("listed")
    newest = sa.select(own.target).where(own.pool == listed.c.pool).order_by(own.at.desc()).limit(1).lateral("newest")
    found = db.execute(sa.select(listed.c.pool, newest.c.target))
    return {row.pool: row.target for row in found}


def last_applied_at(db: Connection, pool: str, action: Action) -> datetime | None:
    """When a decision of this kind for this pool last took effect; None if that was not made in the last day.

    The pauses after a change are shorter, and a day of decisions is found by an index.
    """
    lately = decisions.c.at > sa.func.now() - LATELY
    of_kind = (decisions.c.pool == pool, decisions.c.action == action, lately)
    newest: datetime | None = db.scalar(sa.select(sa.func.max(decisions.c.applied_at)).where(*of_kind))
    return newest


def note_applied(db: Connection, decision_id: int) -> None:
    """Note that a decision has taken effect, and so starts a cooldown."""
    db.execute(sa.update(decisions).where(decisions.c.id == decision_id).values(applied_at=sa.func.now()))


def apply_ordered(db: Connection, pool: str) -> list[int]:
    """Note as applied the pool's decisions with an accepted host, and without one that the provider still rejects.

    Returns: their ids.
    """
    of_it = hosts.c.decision_id == decisions.c.id
    is_accepted = sa.select(hosts.c.id).where(of_it, hosts.c.ordered_at.is_not(None)).exists()
    is_pending = sa.select(hosts.c.id).where(
        of_it, hosts.c.ordered_at.is_(None), hosts.c.drain_at.is_(None), hosts.c.ended_at.is_(None)
    )
    due = sa.update(decisions).where(decisions.c.pool == pool, _OPEN, is_accepted, ~is_pending.exists())
    return sorted(db.scalars(due.values(applied_at=sa.func.now()).returning(decisions.c.id)))


def note_call(db: Connection, host_ids: Sequence[str], error: str | None) -> None:
    """Note a call of the provider on the decisions that ordered or drain these hosts.

    Args: error: why it failed; None if it did not, which leaves the error of an earlier call.
    """
    # A host that drains was called for by the decision that drains it, and no longer by the one that ordered it.
    by = sa.case((hosts.c.drain_at.is_(None), hosts.c.decision_id), else_=hosts.c.drain_decision_id)
    called = sa.update(decisions).where(decisions.c.id.in_(sa.select(by).where(is_one_of(hosts.c.id, host_ids))))
    noted = {"error": error[:ERROR_CHARS]} if error is not None else {}
    db.execute(called.values(tries=decisions.c.tries + 1, **noted))


#: A condition that no sweep has seen for so long begins anew: it may have ended meanwhile.
UNSEEN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class AlertKey:
    """What an alert is about. Attributes: subject: a host's id; empty for the pool itself."""

    kind: str
    pool: str
    subject: str = ""


def note_alert(db: Connection, key: AlertKey) -> datetime:
    """Note that a condition holds; returns since when it has."""
    row = {"kind": key.kind, "pool": key.pool, "subject": key.subject}
    added = insert(scaling_alerts).values(**row, began_at=sa.func.now(), seen_at=sa.func.now())
    began_at = scaling_alerts.c.began_at
    was_unseen = sa.and_(scaling_alerts.c.alerted_at.is_(None), scaling_alerts.c.seen_at < sa.func.now() - UNSEEN)
    seen = {"seen_at": sa.func.now(), "began_at": sa.case((was_unseen, sa.func.now()), else_=began_at)}
    statement = added.on_conflict_do_update(index_elements=list(row), set_=seen).returning(began_at)
    since: datetime = db.execute(statement).scalar_one()
    return since


def tell_alert(db: Connection, key: AlertKey) -> bool:
    """Note that the operator was alerted. Returns: False if that was noted before."""
    alerted = sa.update(scaling_alerts).where(*_of_alert(key), scaling_alerts.c.alerted_at.is_(None))
    return db.execute(alerted.values(alerted_at=sa.func.now()).returning(scaling_alerts.c.kind)).first() is not None


def end_alert(db: Connection, key: AlertKey) -> bool:
    """Note that a condition has ended. Returns: whether the operator was alerted to it."""
    deleted = sa.delete(scaling_alerts).where(*_of_alert(key)).returning(scaling_alerts.c.alerted_at)
    alerted_at = db.scalar(deleted)
    return alerted_at is not None


def _of_alert(key: AlertKey) -> tuple[sa.ColumnElement[bool], ...]:
    row = scaling_alerts.c
    return row.kind == key.kind, row.pool == key.pool, row.subject == key.subject


def lasting_alerts(db: Connection) -> list[AlertKey]:
    """What lasts, by the last sweep."""
    row = scaling_alerts.c
    return [AlertKey(**each._mapping) for each in db.execute(sa.select(row.kind, row.pool, row.subject))]


def alerts_told(db: Connection) -> dict[tuple[str, str], int]:
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


def recent_demand(db: Connection, pool: str, since: timedelta) -> tuple[int, int, int]:
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
