"""Store a model's reasoning separately from its answer.

Revision: 0011, after 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    comment = "What the model thought before it answered; NULL: nothing, or not told."
    op.add_column("job_texts", sa.Column("reasoning", sa.Text, comment=comment))
    comment = "Of the output tokens, those before the answer's first."
    op.add_column("jobs", sa.Column("reasoning_tokens", sa.Integer, comment=comment))


def downgrade() -> None:
    op.drop_column("jobs", "reasoning_tokens")
    op.drop_column("job_texts", "reasoning")
