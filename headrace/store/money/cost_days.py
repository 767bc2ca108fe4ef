"""Closed days: the charges of each day of UTC that is over, summed up, so that a month of them is quick to read."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.store.money.cost_hours import SETTLE, TIMEOUT_MS

#: The most days that one sweep closes.
MOST_DAYS = 31


def open_days(db: Connection) -> list[datetime]:
    """Days that are over and not closed, or closed before their hours last were; the oldest first.

    The first day is that of the ledger's first entry. None is left out, since the views read the charges themselves
    only after the last closed day.
    """
    return list(db.scalars(_OPEN, {"settle": SETTLE, "most": MOST_DAYS}))


def close_day(db: Connection, day: datetime) -> None:
    """Sum up the charges of a day. Closing it again replaces the sums."""
    db.exec_driver_sql(f"SET LOCAL statement_timeout = {TIMEOUT_MS}")
    # First, so that another process that closes the same day waits, and an hour that is closed meanwhile is noticed.
    db.execute(_NOTE, {"day": day})
    for table, function in (("cost_days", "costs_by_day"), ("user_days", "users_by_day")):
        db.execute(sa.text(f"DELETE FROM {table} WHERE day = :day"), {"day": day})
        sums = f"INSERT INTO {table} SELECT * FROM {function}(:day, CAST(:day AS timestamptz) + interval '24 hours')"
        db.execute(sa.text(sums), {"day": day})


_OPEN = sa.text(
    """
    WITH hours AS (
        SELECT date_trunc('day', hour, 'UTC') AS day, count(*) AS hours, max(closed_at) AS closed_at
        FROM cost_hours
        GROUP BY 1
    ), span AS (
        SELECT coalesce((SELECT max(day) + interval '24 hours' FROM closed_days),
                        (SELECT date_trunc('day', min(at), 'UTC') FROM ledger)) AS since,
               date_trunc('day', now() - :settle, 'UTC') AS until
    )
    SELECT day
    FROM span, generate_series(since, until - interval '24 hours', interval '24 hours') AS day
    UNION ALL
    SELECT c.day
    FROM closed_days c
    LEFT JOIN hours h USING (day)
    WHERE (c.hours, coalesce(c.hours_closed_at, '-infinity'))
          <> (coalesce(h.hours, 0), coalesce(h.closed_at, '-infinity'))
    ORDER BY day
    LIMIT :most
    """
).bindparams(sa.bindparam("settle", type_=sa.Interval))
_NOTE = sa.text(
    """
    INSERT INTO closed_days (day, hours, hours_closed_at, closed_at)
    SELECT :day, count(*), max(closed_at), now()
    FROM cost_hours
    WHERE hour >= :day AND hour < CAST(:day AS timestamptz) + interval '24 hours'
    ON CONFLICT (day) DO UPDATE
    SET hours = excluded.hours, hours_closed_at = excluded.hours_closed_at, closed_at = excluded.closed_at
    """
)
