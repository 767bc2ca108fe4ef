"""Index the jobs that were cancelled or met their deadline after a start: some of them end between two attempts.

Revision: 0048, after 0047
"""

from headrace.tables import concurrently

revision = "0048"
down_revision = "0047"
branch_labels = None
depends_on = None

INDEX = "ix_jobs_ended_between"
WHERE = "started_at IS NOT NULL AND (state = 'cancelled' OR error_code = 'deadline_exceeded')"


def upgrade() -> None:
    concurrently.create_index(INDEX, "jobs", ["ended_at"], where=WHERE)


def downgrade() -> None:
    concurrently.drop_index(INDEX, "jobs")
