"""Store the log probabilities of an answer's tokens.

Revision: 0010, after 0009
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    comment = "Of the answer's tokens; NULL: they were not asked for."
    op.add_column("job_texts", sa.Column("logprobs", JSONB, comment=comment))


def downgrade() -> None:
    op.drop_column("job_texts", "logprobs")
