"""Drop the index of the leases: it made each renewal write an entry, and no query needs it.

Revision: 0061, after 0060
"""

from headrace.tables import concurrently

revision = "0061"
down_revision = "0060"
branch_labels = None
depends_on = None

INDEX = "ix_workers_lease_until"


def upgrade() -> None:
    concurrently.drop_index(INDEX, "workers")


def downgrade() -> None:
    concurrently.create_index(INDEX, "workers", ["lease_until"])
