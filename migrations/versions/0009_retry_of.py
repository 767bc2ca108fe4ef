"""Record which failed job a job retries, and find failed jobs fast.

Revision: 0009, after 0008
"""

import sqlalchemy as sa
from alembic import op

from headrace.tables import concurrently

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

RETRY_OF = "The failed job that an operator has run again as this one."


def upgrade() -> None:
    op.add_column("jobs", sa.Column("retry_of", sa.Uuid, comment=RETRY_OF), if_not_exists=True)
    concurrently.create_index("uq_jobs_retry_of", "jobs", ["retry_of"], unique=True, where="retry_of IS NOT NULL")
    concurrently.create_index("ix_jobs_failed", "jobs", ["id"], where="state = 'failed'")


def downgrade() -> None:
    concurrently.drop_index("ix_jobs_failed", "jobs")
    concurrently.drop_index("uq_jobs_retry_of", "jobs")
    op.drop_column("jobs", "retry_of", if_exists=True)
