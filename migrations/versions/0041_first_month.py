"""Bound the ids of the present tables, which become the first partitions: they end with the next month.

The release must be complete before that: from then on these tables refuse new jobs.

Revision: 0041, after 0040
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from headrace.domain.ids import oldest_id, time_of

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None

#: The tables, each with the column that holds the job's id.
KEYS = {"jobs": "id", "job_texts": "job_id", "attempts": "job_id", "ledger": "job_id", "deliveries": "job_id"}


def upgrade() -> None:
    newest = op.get_bind().scalar(sa.text("SELECT id FROM jobs ORDER BY id DESC LIMIT 1"))
    # The id of a host whose clock is ahead counts too.
    at = max(datetime.now(UTC), time_of(newest)) if newest else datetime.now(UTC)
    months = at.year * 12 + at.month - 1 + 2
    bound = oldest_id(datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC))
    # Less than Postgres's `deadlock_timeout`: this transaction gives way before another one fails.
    op.execute("SET LOCAL lock_timeout = '500ms'")
    for table, key in KEYS.items():
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_first CHECK ({key} < '{bound}') NOT VALID")


def downgrade() -> None:
    for table in KEYS:
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_first")
