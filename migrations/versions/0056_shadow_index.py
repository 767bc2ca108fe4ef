"""Index the jobs that want a shadow, and the shadows that are not compared yet.

Revision: 0056, after 0055
"""

from headrace.tables import concurrently

revision = "0056"
down_revision = "0055"
branch_labels = None
depends_on = None

INDEX = "ix_jobs_shadow"
WHERE = "shadow IN ('wanted', 'open')"


def upgrade() -> None:
    concurrently.create_index(INDEX, "jobs", ["ended_at"], where=WHERE)


def downgrade() -> None:
    concurrently.drop_index(INDEX, "jobs")
