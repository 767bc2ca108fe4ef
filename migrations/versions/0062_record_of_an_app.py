"""Index the tries of each app and pool.

Revision: 0062, after 0061
"""

from headrace.tables import concurrently

revision = "0062"
down_revision = "0061"
branch_labels = None
depends_on = None

INDEX = "ix_cache_matches_record"
WHERE = "is_right IS NOT NULL"


def upgrade() -> None:
    concurrently.create_index(INDEX, "cache_matches", ["app_id", "pool", "at"], where=WHERE)


def downgrade() -> None:
    concurrently.drop_index(INDEX, "cache_matches")
