"""Note when a job first went to the paid API, and what refused jobs would likely have used.

Revision: 0025, after 0024
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

TOKENS = {
    "expected_tokens": "What its jobs would likely have used.",
    "sampled_tokens": "Those of its expected_tokens that a row of queue_samples counts.",
}


def upgrade() -> None:
    op.add_column(
        "jobs",
        sa.Column(
            "overflow_at",
            sa.TIMESTAMP(timezone=True),
            comment="When it first went to the paid API's queue; NULL: never.",
        ),
    )
    for name, about in TOKENS.items():
        op.add_column(
            "refusals", sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0"), comment=about)
        )
    op.alter_column("refusals", "tokens", comment="The most that its jobs could have used.")


def downgrade() -> None:
    op.alter_column("refusals", "tokens", comment=None)
    for name in TOKENS:
        op.drop_column("refusals", name)
    op.drop_column("jobs", "overflow_at")
