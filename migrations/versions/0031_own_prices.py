"""Keep the measured prices of own tokens.

Revision: 0031, after 0030
"""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

USD = sa.Numeric(18, 9)


def upgrade() -> None:
    op.create_table(
        "own_prices",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("instance_type", sa.Text, nullable=False, comment="A NAME of [hosts.NAME]."),
        sa.Column("usd_per_hour", USD, nullable=False),
        sa.Column("tokens_per_s", sa.Float, nullable=False, comment="What one saturated host of the type serves."),
        sa.Column("work_per_token", sa.Float, nullable=False, comment="Of the pool's requests then."),
        sa.Column("input_usd_per_mtok", USD, nullable=False),
        sa.Column("cached_input_usd_per_mtok", USD, nullable=False),
        sa.Column("output_usd_per_mtok", USD, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_own_prices")),
        comment="What a token costs on own hosts while they are saturated. The newest row of a pool counts.",
    )
    op.create_index("ix_own_prices_pool_id", "own_prices", ["pool", "id"])


def downgrade() -> None:
    op.drop_table("own_prices")
