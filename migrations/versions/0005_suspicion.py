"""Record which jobs an engine died under, and why a worker stopped by itself.

Revision: 0005, after 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SUSPICION = "0: none. 1: an engine died while it ran. From 2 on it runs alone, and fails if the engine dies again."


def upgrade() -> None:
    count = sa.Column("suspicion", sa.SmallInteger, nullable=False, server_default=sa.text("0"), comment=SUSPICION)
    op.add_column("jobs", count)
    op.add_column("workers", sa.Column("stop_reason", sa.Text, comment="Why it took itself out; NULL: it was stopped."))


def downgrade() -> None:
    op.drop_column("workers", "stop_reason")
    op.drop_column("jobs", "suspicion")
