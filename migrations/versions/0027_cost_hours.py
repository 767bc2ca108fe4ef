"""Close each hour of own hosts: what they cost, and how the requests of the hour share it.

Revision: 0027, after 0026
"""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

USD = sa.Numeric(18, 9)
SECONDS = sa.Numeric(18, 6)
RATE = sa.Numeric(36, 18)
WEIGHT = sa.Numeric(9, 4)
TIMESTAMP = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        "cost_hours",
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("hour", TIMESTAMP, nullable=False, comment="Its start, in UTC."),
        sa.Column("host_s", SECONDS, nullable=False, comment="Seconds of hosts that the bill covers."),
        sa.Column("boot_s", SECONDS, nullable=False, comment="Those of them before the host was ready."),
        sa.Column("unpriced_hosts", sa.Integer, nullable=False, comment="Hosts of that hour without a price."),
        sa.Column("bill_usd", USD, nullable=False),
        sa.Column("boot_usd", USD, nullable=False, comment="The part of the bill for boot_s."),
        sa.Column("requests", sa.BigInteger, nullable=False, comment="Entries of the kind compute of that hour."),
        sa.Column("work", sa.Numeric(36, 9), nullable=False, comment="Of these requests."),
        sa.Column("compute_usd", USD, nullable=False, comment="Their prices."),
        sa.Column("waste_usd", USD, nullable=False, comment="The prices of failed and lost attempts on own hosts."),
        sa.Column("factor", RATE, nullable=False, comment="The part of each price that the bill covers."),
        sa.Column("idle_usd_per_work", RATE, nullable=False, comment="A request's share of what no price covers."),
        sa.Column(
            "platform_usd", USD, nullable=False, comment="What no request pays: waste, and digits below the last."
        ),
        sa.Column("weigh_by", sa.Text, nullable=False),
        sa.Column("cached_weight", WEIGHT, nullable=False),
        sa.Column("output_weight", WEIGHT, nullable=False),
        sa.Column("closed_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("pool", "hour", name=op.f("pk_cost_hours")),
        sa.CheckConstraint("weigh_by IN ('tokens', 'kv')", name=op.f("ck_cost_hours_weigh_by")),
        comment="One row for each pool and each hour of UTC in which its hosts were billed.",
    )
    op.execute(
        """
        CREATE FUNCTION request_work(prompt_tokens int, cached_tokens int, output_tokens int, kv_token_s float8,
                                     weigh_by text, cached_weight numeric, output_weight numeric)
        RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN CASE weigh_by
            WHEN 'kv' THEN round(coalesce(kv_token_s, 0)::numeric, 6)
            ELSE prompt_tokens - cached_tokens + cached_weight * cached_tokens + output_weight * output_tokens
        END
        """
    )
    op.execute(
        """
        CREATE FUNCTION full_usd(usd numeric, work numeric, factor numeric, idle_usd_per_work numeric)
        RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN trunc(usd * factor, 9) + trunc(work * idle_usd_per_work, 9)
        """
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION full_usd")
    op.execute("DROP FUNCTION request_work")
    op.drop_table("cost_hours")
