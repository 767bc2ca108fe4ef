"""Past months of the tables that are partitioned by month: a new system has none, since its first partitions end later.

Knows the partitions and nothing of what is measured on them.
"""

from datetime import UTC, datetime

import sqlalchemy as sa

from bed.testbed import Testbed, wait_until
from headrace.domain.ids import oldest_id
from headrace.store import clock, locks, months
from headrace.tables import BY_MONTH

#: Tables whose first partition also has the rows that are about no job, and so has no bounds.
WITH_OTHERS = ("ledger", "deliveries")
LOCK_LIMIT_S = 60.0


def make_past_months(bed: Testbed, ago: int) -> int:
    """Let the first partitions of the empty tables end so many months ago, and have the product make those since then.

    Returns: the partitions of each table.
    """
    engine = sa.create_engine(bed.stack.report.database_url)
    with engine.begin() as db:
        wait_until(lambda: locks.try_take(db, "months"), LOCK_LIMIT_S, "Another process makes months.")
        # All of them first, as each query locks them: the sweeps read them meanwhile.
        db.exec_driver_sql(f"LOCK TABLE {', '.join(BY_MONTH)}")
        first, *later = months.found(db)
        for month in later:
            for table in reversed(BY_MONTH):
                db.exec_driver_sql(f"DROP TABLE {table}_{month.name}")
        now = clock.now(db)
        until = oldest_id(_months_before(now, ago))
        for table in BY_MONTH.keys() - set(WITH_OTHERS):
            part = f"{table}_{first.name}"
            db.exec_driver_sql(f"ALTER TABLE {table} DETACH PARTITION {part}")
            db.exec_driver_sql(f"ALTER TABLE {table} ATTACH PARTITION {part} FOR VALUES FROM (MINVALUE) TO ('{until}')")
        made = months.make(db, now)
    engine.dispose()
    return 1 + len(made)


def _months_before(at: datetime, ago: int) -> datetime:
    """The start of the month of UTC that is so many months earlier."""
    at = at.astimezone(UTC)
    number = at.year * 12 + at.month - 1 - ago
    return datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)
