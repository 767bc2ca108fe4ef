"""Let two secrets sign during a rotation, record receivers that are gone, and find failed deliveries fast.

Revision: 0018, after 0017
"""

import sqlalchemy as sa
from alembic import op

from headrace.tables import concurrently

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

SECRET_OLD = "The secret before; it signs too until webhook_secret_old_until."


def upgrade() -> None:
    concurrently.create_index("ix_deliveries_failed", "deliveries", ["id"], where="state = 'failed'")
    op.add_column("apps", sa.Column("webhook_secret_old", sa.Text, comment=SECRET_OLD))
    op.add_column("apps", sa.Column("webhook_secret_old_until", sa.TIMESTAMP(timezone=True)))
    op.create_table(
        "gone_receivers",
        sa.Column("digest", sa.LargeBinary, comment="SHA-256 of the app's id and the URL."),
        sa.Column(
            "app_id",
            sa.Uuid,
            sa.ForeignKey("apps.id", ondelete="CASCADE", name="fk_gone_receivers_app_id"),
            comment="Whose it is; NULL: the operator's.",
        ),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("digest", name="pk_gone_receivers"),
        comment="URLs that answered 410: nothing of that app is sent there any more.",
    )


def downgrade() -> None:
    op.drop_table("gone_receivers")
    op.drop_column("apps", "webhook_secret_old_until")
    op.drop_column("apps", "webhook_secret_old")
    op.drop_index("ix_deliveries_failed", table_name="deliveries")
