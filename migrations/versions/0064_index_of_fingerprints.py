"""Index the fingerprints of the semantic cache's entries.

Revision: 0064, after 0063
"""

from alembic import op

from headrace.tables import concurrently

revision = "0064"
down_revision = "0063"
branch_labels = None
depends_on = None

INDEX = "ix_cache_entries_fingerprints"


def upgrade() -> None:
    concurrently.create_index(INDEX, "cache_entries", ["fingerprints"], using="gin")
    # A list of pending entries would be read by every search.
    op.execute(f"ALTER INDEX {INDEX} SET (fastupdate = off)")


def downgrade() -> None:
    concurrently.drop_index(INDEX, "cache_entries")
