"""Calls to the paid API that ended while their budgets' rows were locked.

Revision: 0067, after 0066
"""

import sqlalchemy as sa
from alembic import op

revision = "0067"
down_revision = "0066"
branch_labels = None
depends_on = None

USD = sa.Numeric(18, 9)


def upgrade() -> None:
    op.create_table(
        "unsettled_calls",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column("app_id", sa.Uuid, nullable=False),
        sa.Column(
            "started_at",
            sa.TIMESTAMP(timezone=True),
            nullable=False,
            comment="When the attempt began: its day and month pay.",
        ),
        sa.Column("reserved_usd", USD, nullable=False, comment="What the budgets still hold for it."),
        sa.Column("usd", USD, nullable=False, comment="What it has cost."),
        comment="Calls to the paid API that have ended while their budgets' rows were locked.",
    )


def downgrade() -> None:
    op.drop_table("unsettled_calls")
