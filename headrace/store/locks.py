"""Locks by name, so that only one of several processes does the same thing."""

import sqlalchemy as sa
from sqlalchemy import Connection

#: Separates these locks from any other advisory locks in the same database.
NAMESPACE = 0x48656164


def try_take(db: Connection, name: str) -> bool:
    """Take the lock of this name until the transaction ends. Does not wait: False if another transaction holds it."""
    key = (sa.literal(NAMESPACE, sa.Integer), sa.func.hashtext(name))
    return bool(db.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(*key))))
