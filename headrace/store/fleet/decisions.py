"""Scaling decisions: what was decided, from what, and what became of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import ARRAY

from headrace.domain.fleet import ScalingRecord
from headrace.domain.scaling import Action
from headrace.errors import NotFound
from headrace.tables import decisions, hosts

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
    """The last decision for this pool."""
    return _newest(db, decisions.c.pool == pool)


def failing(db: Connection, pool: str) -> MadeDecision | None:
    """The last decision for this pool of which a call of the provider failed, and that is not carried out.

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
    """Note as applied the pool's decisions of whose hosts the provider has accepted some and rejects none any more.

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
    among = hosts.c.id == sa.any_(sa.cast(list(host_ids), ARRAY(sa.Text)))
    # A host that drains was called for by the decision that drains it, and no longer by the one that ordered it.
    by = sa.case((hosts.c.drain_at.is_(None), hosts.c.decision_id), else_=hosts.c.drain_decision_id)
    called = sa.update(decisions).where(decisions.c.id.in_(sa.select(by).where(among)))
    noted = {"error": error[:ERROR_CHARS]} if error is not None else {}
    db.execute(called.values(tries=decisions.c.tries + 1, **noted))
