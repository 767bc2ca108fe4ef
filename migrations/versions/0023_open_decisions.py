"""Index the scaling decisions that are still to be carried out.

Revision: 0023, after 0022
"""

from headrace.tables import concurrently

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

INDEX = "ix_decisions_open"


def upgrade() -> None:
    concurrently.create_index(
        INDEX, "decisions", ["pool"], where="mode = 'active' AND action <> 'hold' AND applied_at IS NULL"
    )


def downgrade() -> None:
    concurrently.drop_index(INDEX, "decisions")
