"""Which control process asks the provider of a pool's hosts for changes: one at a time, each for a limited time.

A lock would keep a transaction or a session open during the calls, which may take minutes.
"""

from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from headrace.tables import host_actors


def claim(db: Connection, pool: str, holder: UUID, for_s: float) -> bool:
    """Claim the pool, or extend the claim. Does not wait: False while another process holds it."""
    until = sa.func.now() + timedelta(seconds=for_s)
    claimed = insert(host_actors).values(pool=pool, holder=holder, until=until)
    is_free = sa.or_(host_actors.c.holder == holder, host_actors.c.until <= sa.func.now())
    taken = claimed.on_conflict_do_update(
        index_elements=["pool"], set_={"holder": holder, "until": until}, where=is_free
    )
    return db.execute(taken.returning(host_actors.c.pool)).first() is not None


def hold(db: Connection, pool: str, holder: UUID, for_s: float) -> bool:
    """Extend a claim; returns False if it was lost meanwhile, so that the caller may write and call nothing more.

    The claim cannot be lost before the transaction ends.
    """
    mine = (host_actors.c.pool == pool, host_actors.c.holder == holder, host_actors.c.until > sa.func.now())
    held = sa.update(host_actors).where(*mine).values(until=sa.func.now() + timedelta(seconds=for_s))
    return db.execute(held.returning(host_actors.c.pool)).first() is not None


def give_up(db: Connection, pool: str, holder: UUID) -> None:
    """End the claim, so that the next process need not wait."""
    mine = (host_actors.c.pool == pool, host_actors.c.holder == holder)
    db.execute(sa.update(host_actors).where(*mine).values(until=sa.func.now()))


def was_held_by_another(db: Connection, pool: str, holder: UUID, within: timedelta) -> bool:
    """Whether another process held the claim last, and within this time. It need not hold it any more."""
    others = (host_actors.c.pool == pool, host_actors.c.holder != holder, host_actors.c.until > sa.func.now() - within)
    return db.execute(sa.select(host_actors.c.pool).where(*others)).first() is not None
