"""Locks by name, so that of several processes that could do the same thing one does it."""

import sqlalchemy as sa
from sqlalchemy import Connection

#: Keeps our names apart from anything else that uses advisory locks in the same database.
NAMESPACE = 0x48656164


def try_take(db: Connection, name: str) -> bool:
    """Take the lock of this name until the transaction ends; False, at once, while another transaction has it."""
    key = (sa.literal(NAMESPACE, sa.Integer), sa.func.hashtext(name))
    return bool(db.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(*key))))
