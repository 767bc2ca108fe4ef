"""Sum up the charges of days that are over, and note the limit of all apps together beside what they spent.

Revision: 0035, after 0034
"""

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

SUM = sa.Numeric(36, 9)
TIMESTAMP = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        "closed_days",
        sa.Column("day", TIMESTAMP, nullable=False, comment="Its start, in UTC."),
        sa.Column("hours", sa.Integer, nullable=False, comment="Rows of cost_hours that its sums rest on."),
        sa.Column("hours_closed_at", TIMESTAMP, comment="When the last of them was closed; NULL: there are none."),
        sa.Column("closed_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_closed_days")),
        comment="Days whose charges are summed up in cost_days and user_days. A day has no gap before it.",
    )
    op.create_table(
        "cost_days",
        sa.Column("day", TIMESTAMP, nullable=False),
        sa.Column("app_id", sa.Uuid, comment="NULL: the platform."),
        *(sa.Column(name, sa.Text) for name in ("pool", "model", "lane", "route")),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("requests", "users")),
        *(
            sa.Column(name, sa.BigInteger, nullable=False)
            for name in ("prompt_tokens", "cached_tokens", "output_tokens")
        ),
        *(sa.Column(name, SUM, nullable=False) for name in ("usd", "full_usd", "waste_usd")),
        sa.Column("api_usd", SUM),
        comment="The sums of closed days behind cost_per_day, which also has the days since.",
    )
    op.create_index("ix_cost_days_day", "cost_days", ["day"])
    op.create_table(
        "user_days",
        sa.Column("day", TIMESTAMP, nullable=False),
        sa.Column("app_id", sa.Uuid),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("users", "requests")),
        sa.Column("full_usd", SUM, nullable=False),
        comment="The sums of closed days behind cost_per_user_day, which also has the days since.",
    )
    op.create_index("ix_user_days_day", "user_days", ["day"])
    op.add_column(
        "budgets",
        sa.Column(
            "limit_usd",
            sa.Numeric(18, 9),
            comment="Of all apps together: the limit in force when the control process last looked; NULL: none.",
        ),
    )


def downgrade() -> None:
    op.drop_column("budgets", "limit_usd")
    for table in ("user_days", "cost_days", "closed_days"):
        op.drop_table(table)
