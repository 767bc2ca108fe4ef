"""The database's clock, which all hosts share."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection


def now(db: Connection) -> datetime:
    """The start time of this transaction."""
    at: datetime = db.execute(sa.select(sa.func.now())).scalar_one()
    return at
