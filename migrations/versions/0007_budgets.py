"""Record what is spent at the paid API, and let an app have a budget.

Revision: 0007, after 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

USD = sa.Numeric(18, 9)
RESERVED = "What its call to the paid API may still cost, and holds of its budgets; 0 once that is settled."
SPENT = "What was spent at the paid API, and may yet be by calls under way. The limits are the apps' and settings."


def upgrade() -> None:
    day = "It may spend so much at the paid API in a day of UTC; NULL: no limit."
    op.add_column("apps", sa.Column("day_usd", USD, comment=day))
    op.add_column("apps", sa.Column("month_usd", USD, comment="Likewise in a month."))
    reserved = sa.Column("reserved_usd", USD, nullable=False, server_default=sa.text("0"), comment=RESERVED)
    op.add_column("attempts", reserved)
    # Nothing has been written there yet.
    op.drop_column("budgets", "limit_usd")
    op.create_table_comment("budgets", SPENT)


def downgrade() -> None:
    op.drop_table_comment("budgets")
    op.add_column("budgets", sa.Column("limit_usd", USD, nullable=False, server_default=sa.text("0")))
    op.alter_column("budgets", "limit_usd", server_default=None)
    op.drop_column("attempts", "reserved_usd")
    op.drop_column("apps", "month_usd")
    op.drop_column("apps", "day_usd")
