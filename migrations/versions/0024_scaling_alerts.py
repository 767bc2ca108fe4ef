"""Remember which alerts of the autoscaler were sent, and which hosts the provider was asked to end.

Revision: 0024, after 0023
"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

TIMESTAMP = sa.TIMESTAMP(timezone=True)
RELEASED = "When the provider was first asked to end it; from then on it cannot be called back."
ALERTS = "What the operator is or will be alerted to. A row is deleted when its condition ends."


def upgrade() -> None:
    op.add_column("hosts", sa.Column("released_at", TIMESTAMP, comment=RELEASED))
    op.create_table(
        "scaling_alerts",
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False, comment="A host's id; empty: the pool itself."),
        sa.Column("began_at", TIMESTAMP, nullable=False),
        sa.Column("seen_at", TIMESTAMP, nullable=False),
        sa.Column("alerted_at", TIMESTAMP, comment="NULL: it has not lasted long enough."),
        sa.PrimaryKeyConstraint("kind", "pool", "subject", name=op.f("pk_scaling_alerts")),
        comment=ALERTS,
    )


def downgrade() -> None:
    op.drop_table("scaling_alerts")
    op.drop_column("hosts", "released_at")
