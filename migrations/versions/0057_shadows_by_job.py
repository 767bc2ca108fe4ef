"""Index shadows by the jobs that they answer once more.

Revision: 0057, after 0056
"""

from headrace.tables import concurrently

revision = "0057"
down_revision = "0056"
branch_labels = None
depends_on = None

INDEX = "ix_jobs_shadow_of"
WHERE = "shadow_of IS NOT NULL"


def upgrade() -> None:
    concurrently.create_index(INDEX, "jobs", ["shadow_of"], where=WHERE)


def downgrade() -> None:
    concurrently.drop_index(INDEX, "jobs")
