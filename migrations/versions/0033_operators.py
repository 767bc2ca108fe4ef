"""Keep the accounts of operators, who log in to the pages at /ops.

Revision: 0033, after 0032
"""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "operators",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False, comment="Salted scrypt; a new one ends the open sessions."),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.CheckConstraint("role IN ('viewer', 'operator', 'admin')", name=op.f("ck_operators_role")),
    )
    op.create_table(
        "failed_logins",
        sa.Column("digest", sa.LargeBinary, primary_key=True, comment="SHA-256 of the name that was given."),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column(
            "until",
            sa.TIMESTAMP(timezone=True),
            nullable=False,
            index=True,
            comment="Then they are forgotten.",
        ),
        comment="Failed logins by name, whether an operator has it or not.",
    )


def downgrade() -> None:
    op.drop_table("failed_logins")
    op.drop_table("operators")
