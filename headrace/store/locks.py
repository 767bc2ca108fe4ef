"""Locks by name, so that only one of several processes does the same thing.

Each is a row of a table that is closed to analysts. Any role may take an advisory lock, and so stop what waits for it.
"""

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from headrace.errors import LockHeld
from headrace.tables import locks


def take(db: Connection, name: str) -> None:
    """Take the lock of this name until the transaction ends. Waits only for another transaction that makes its row.

    Raises: LockHeld: another transaction holds it.
    """
    is_taken, exists = db.execute(_TAKE, {"of_name": name}).one()
    # The row of a new name is made once, and no other transaction sees it before this one ends.
    if not (is_taken or (not exists and db.execute(_MAKE, {"name": name}).first())):
        raise LockHeld(f"Another process holds the lock '{name}'.")


def wait(db: Connection, name: str) -> None:
    """Take the lock of this name until the transaction ends, once the transaction that holds it has ended."""
    db.execute(_MAKE, {"name": name})
    db.execute(_NAMED.with_for_update(), {"of_name": name})


_NAMED = sa.select(locks.c.name).where(locks.c.name == sa.bindparam("of_name"))
_FREE = _NAMED.with_for_update(skip_locked=True).cte("free")
_TAKE = sa.select(sa.select(_FREE.c.name).exists(), _NAMED.exists())
_MAKE = insert(locks).on_conflict_do_nothing().returning(locks.c.name)
