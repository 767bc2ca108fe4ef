"""Note which failed job a job is the retry of, and find failed jobs fast.

Revision: 0009, after 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

RETRY_OF = "The failed job that an operator has run again as this one."


def upgrade() -> None:
    op.add_column("jobs", sa.Column("retry_of", sa.Uuid, comment=RETRY_OF))
    op.create_index(
        "uq_jobs_retry_of", "jobs", ["retry_of"], unique=True, postgresql_where=sa.text("retry_of IS NOT NULL")
    )
    op.create_index("ix_jobs_failed", "jobs", ["id"], postgresql_where=sa.text("state = 'failed'"))


def downgrade() -> None:
    op.drop_index("ix_jobs_failed", table_name="jobs")
    op.drop_index("uq_jobs_retry_of", table_name="jobs")
    op.drop_column("jobs", "retry_of")
