"""Mark which refusals a queue's samples count.

Revision: 0014, after 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    comment = "Those of its jobs that a row of queue_samples counts."
    op.add_column(
        "refusals",
        sa.Column("sampled_jobs", sa.Integer, nullable=False, server_default=sa.text("0"), comment=comment),
    )
    # The samples ignore older rows: see `observations.LATE_REFUSALS`.
    op.execute("UPDATE refusals SET sampled_jobs = jobs WHERE minute > now() - interval '1 hour'")


def downgrade() -> None:
    op.drop_column("refusals", "sampled_jobs")
