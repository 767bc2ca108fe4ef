"""Index the jobs that went to the paid API, so that each sample counts them once.

Revision: 0026, after 0025
"""

from headrace.tables import concurrently

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

INDEX = "ix_jobs_overflow_at"


def upgrade() -> None:
    concurrently.create_index(INDEX, "jobs", ["overflow_at"], where="overflow_at IS NOT NULL")


def downgrade() -> None:
    concurrently.drop_index(INDEX, "jobs")
