"""Scaling decisions: what was decided, from what, and what became of it."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import ARRAY

from headrace.domain.fleet import ScalingRecord
from headrace.domain.scaling import Action
from headrace.errors import NotFound
from headrace.tables import decisions, hosts

#: The most characters of a provider's error that a row keeps.
ERROR_CHARS = 500

_OPEN = sa.and_(decisions.c.mode == "active", decisions.c.action != Action.HOLD, decisions.c.applied_at.is_(None))


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


def last_at(db: Connection, pool: str) -> datetime | None:
    """When a decision was last made for this pool."""
    newest: datetime | None = db.scalar(sa.select(sa.func.max(decisions.c.at)).where(decisions.c.pool == pool))
    return newest


def last_applied_at(db: Connection, pool: str, action: Action) -> datetime | None:
    """When a decision of this kind for this pool last took effect."""
    of_kind = (decisions.c.pool == pool, decisions.c.action == action)
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
