"""Index the jobs that have an answer and wait for a better one.

Revision: 0054, after 0053
"""

from headrace.tables import concurrently

revision = "0054"
down_revision = "0053"
branch_labels = None
depends_on = None

INDEX = "ix_jobs_standing"
WHERE = "state IN ('waiting', 'queued') AND stand_by IS NOT NULL"


def upgrade() -> None:
    concurrently.create_index(INDEX, "jobs", ["stand_by"], where=WHERE)


def downgrade() -> None:
    concurrently.drop_index(INDEX, "jobs")
