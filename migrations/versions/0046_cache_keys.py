"""Index the keys of the exact cache. Jobs without a key, as all are while it is off, are not in the index.

Revision: 0046, after 0045
"""

from headrace.tables import concurrently

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None

INDEX = "ix_job_texts_cache_key"


def upgrade() -> None:
    concurrently.create_index(INDEX, "job_texts", ["cache_key", "job_id"], where="cache_key IS NOT NULL")


def downgrade() -> None:
    concurrently.drop_index(INDEX, "job_texts")
