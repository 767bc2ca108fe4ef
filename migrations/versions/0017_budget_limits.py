"""Store the limits of all apps together, and record alerts on spent and on reserved money separately.

Revision: 0017, after 0016
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

USD = sa.Numeric(18, 9)
TABLE = "The stored limits of all apps together at the paid API, one row; without it those of the settings hold."
TOLD = "The highest threshold of what was spent that the operator was told about."
SHORT = "When a call first found too little left beside what was spent, near the limit."
OLD_TOLD = "The highest threshold that was told of."
OLD_SHORT = "When a call first found too little left, with the first threshold reached."


def upgrade() -> None:
    op.create_table(
        "budget_limits",
        sa.Column("id", sa.SmallInteger, server_default=sa.text("1")),
        sa.Column("day_usd", USD, comment="All apps together may spend so much in a day of UTC; NULL: no limit."),
        sa.Column("month_usd", USD, comment="Likewise in a month."),
        sa.Column("set_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("id", name="pk_budget_limits"),
        sa.CheckConstraint("id = 1", name="one_row"),
        comment=TABLE,
    )
    op.add_column(
        "budgets",
        sa.Column(
            "told_reserved_percent",
            sa.SmallInteger,
            nullable=False,
            server_default=sa.text("0"),
            comment="Likewise of what was spent and reserved.",
        ),
    )
    reserved_short = "Likewise beside what was spent and reserved."
    op.add_column("budgets", sa.Column("reserved_short_at", sa.TIMESTAMP(timezone=True), comment=reserved_short))
    op.alter_column("budgets", "told_percent", comment=TOLD, existing_comment=OLD_TOLD)
    op.alter_column("budgets", "short_at", comment=SHORT, existing_comment=OLD_SHORT)


def downgrade() -> None:
    op.alter_column("budgets", "short_at", comment=OLD_SHORT, existing_comment=SHORT)
    op.alter_column("budgets", "told_percent", comment=OLD_TOLD, existing_comment=TOLD)
    op.drop_column("budgets", "reserved_short_at")
    op.drop_column("budgets", "told_reserved_percent")
    op.drop_table("budget_limits")
