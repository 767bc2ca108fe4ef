"""Index the jobs that ended without a start, so that counting arrivals costs nothing for jobs that still wait.

Revision: 0021, after 0020
"""

from headrace.tables import concurrently

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

INDEX = "ix_jobs_ended_unstarted"


def upgrade() -> None:
    concurrently.create_index(INDEX, "jobs", ["ended_at"], where="started_at IS NULL AND ended_at IS NOT NULL")


def downgrade() -> None:
    concurrently.drop_index(INDEX, "jobs")
