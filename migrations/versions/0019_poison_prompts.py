"""Remember the prompts that killed an engine in which nothing else ran.

Revision: 0019, after 0018
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

JOB = "The last job that killed an engine with it."


def upgrade() -> None:
    op.create_table(
        "poison_prompts",
        sa.Column("digest", sa.LargeBinary, nullable=False, comment="SHA-256 of model, messages and how to decode."),
        sa.Column("job_id", sa.Uuid, nullable=False, comment=JOB),
        sa.Column("refused_until", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_poison_prompts")),
        comment="Prompts that killed an engine in which nothing else ran.",
    )
    op.create_index(op.f("ix_poison_prompts_refused_until"), "poison_prompts", ["refused_until"])


def downgrade() -> None:
    op.drop_table("poison_prompts")
