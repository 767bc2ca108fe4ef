"""Index the ledger by time, so that closing an hour reads that hour alone.

Revision: 0028, after 0027
"""

from headrace.tables import concurrently

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

INDEX = "ix_ledger_at"


def upgrade() -> None:
    concurrently.create_index(INDEX, "ledger", ["at"], using="brin")


def downgrade() -> None:
    concurrently.drop_index(INDEX, "ledger")
