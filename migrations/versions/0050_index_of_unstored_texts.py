"""Index the texts of which nothing is to be kept: only those that are not delivered yet are in the index.

Revision: 0050, after 0049
"""

from headrace.tables import concurrently

revision = "0050"
down_revision = "0049"
branch_labels = None
depends_on = None

INDEX = "ix_job_texts_unstored"


def upgrade() -> None:
    concurrently.create_index(INDEX, "job_texts", ["job_id"], where="is_unstored")


def downgrade() -> None:
    concurrently.drop_index(INDEX, "job_texts")
