"""Index the receivers that are gone by their age, so that old ones can be deleted.

Revision: 0020, after 0019
"""

from headrace.tables import concurrently

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

INDEX = "ix_gone_receivers_created_at"


def upgrade() -> None:
    concurrently.create_index(INDEX, "gone_receivers", ["created_at"])


def downgrade() -> None:
    concurrently.drop_index(INDEX, "gone_receivers")
