"""The database's clock: the one that every host agrees on."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection


def now(db: Connection) -> datetime:
    """The time at which this transaction began."""
    at: datetime = db.execute(sa.select(sa.func.now())).scalar_one()
    return at
