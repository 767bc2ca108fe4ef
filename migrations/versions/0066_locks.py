"""Locks of the sweeps as rows, which analysts cannot take. Processes of an older release take advisory locks.

Revision: 0066, after 0065
"""

import sqlalchemy as sa
from alembic import op

revision = "0066"
down_revision = "0065"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "locks",
        sa.Column("name", sa.Text, primary_key=True, comment="Of the work."),
        comment="One row for each work that one control process does at a time. That process locks the row meanwhile.",
    )


def downgrade() -> None:
    op.drop_table("locks")
