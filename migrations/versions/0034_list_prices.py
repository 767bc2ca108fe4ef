"""Keep the list prices of the paid API's models, each with the time in which it held.

Revision: 0034, after 0033
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

USD = sa.Numeric(18, 9)
MOMENT = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        "list_prices",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("model", sa.Text, nullable=False, comment="As calls of the paid API name it."),
        sa.Column("valid_from", MOMENT, nullable=False, comment="When an operator took this price."),
        sa.Column("valid_to", MOMENT, comment="When another price took its place; NULL: it is in force."),
        sa.Column("input_usd_per_mtok", USD, nullable=False),
        sa.Column("cached_input_usd_per_mtok", USD, nullable=False),
        sa.Column("output_usd_per_mtok", USD, nullable=False),
        sa.Column("tiers", JSONB, nullable=False, comment="Factors of the price by the provider's service tier."),
        sa.Column("source", sa.Text, nullable=False, comment="The library, its version, and its name of the model."),
        sa.CheckConstraint("valid_to > valid_from", name=op.f("ck_list_prices_valid")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_list_prices")),
        comment="Providers' list prices. Only valid_to of a row changes. [prices] in headrace.toml overrides them.",
    )
    is_in_force = sa.text("valid_to IS NULL")
    op.create_index("uq_list_prices_in_force", "list_prices", ["model"], unique=True, postgresql_where=is_in_force)


def downgrade() -> None:
    op.drop_table("list_prices")
