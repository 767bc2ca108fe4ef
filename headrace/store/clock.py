"""The database's clock, which all hosts share."""

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection

#: How long `settled` waits for a transaction, so that one that stays open for hours holds nothing up.
PATIENCE = timedelta(seconds=1)

#: As a value of a column: the start time of the transaction.
NOW = sa.func.now()
_SETTLED = sa.text(
    """
    SELECT greatest(now() - :patience, least(now(), min(xact_start) - interval '1 microsecond'))
    FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
    """
)


def now(db: Connection) -> datetime:
    """The start time of this transaction."""
    at: datetime = db.execute(sa.select(sa.func.now())).scalar_one()
    return at


def settled(db: Connection) -> datetime:
    """The latest time up to which every transaction that began has ended; at most `PATIENCE` ago.

    Rows carry the start of the transaction that wrote them. So every row that is dated up to this time can be read now,
    and a count of these rows misses none.
    """
    at: datetime = db.execute(_SETTLED, {"patience": PATIENCE}).scalar_one()
    return at
