"""Record which budget thresholds the operator was alerted to, and let webhooks carry events other than ends of jobs.

Revision: 0008, after 0007
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TOLD = "The highest threshold that was told of."
SHORT = "When a call first found too little left, with the first threshold reached."
ABOUT = {"job_id": "Whose end it tells of; NULL: see data.", "app_id": "Whose it is; NULL: the operator's."}


def upgrade() -> None:
    told = sa.Column("told_percent", sa.SmallInteger, nullable=False, server_default=sa.text("0"), comment=TOLD)
    op.add_column("budgets", told)
    op.add_column("budgets", sa.Column("short_at", sa.TIMESTAMP(timezone=True), comment=SHORT))
    for column, comment in ABOUT.items():
        op.alter_column("deliveries", column, nullable=True, comment=comment)
    op.add_column("deliveries", sa.Column("data", JSONB, comment="What it says, where it is not a job's end."))
    op.create_check_constraint("about", "deliveries", "num_nonnulls(job_id, data) = 1")


def downgrade() -> None:
    op.execute("DELETE FROM deliveries WHERE job_id IS NULL OR app_id IS NULL")
    op.drop_constraint("about", "deliveries", type_="check")
    op.drop_column("deliveries", "data")
    for column, comment in ABOUT.items():
        op.alter_column("deliveries", column, nullable=False, comment=None, existing_comment=comment)
    op.drop_column("budgets", "short_at")
    op.drop_column("budgets", "told_percent")
