"""Hold jobs that ask for several answers: how many, and those after the first.

Revision: 0060, after 0059
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSON

revision = "0060"
down_revision = "0059"
branch_labels = None
depends_on = None

N = "The answers that it asks for, each of max_tokens at most; NULL: one."
CHOICES = "The answers after the first; NULL: it asked for one."


def upgrade() -> None:
    op.add_column("jobs", sa.Column("n", sa.SmallInteger, comment=N))
    op.add_column("job_texts", sa.Column("choices", JSON, comment=CHOICES))


def downgrade() -> None:
    op.drop_column("job_texts", "choices")
    op.drop_column("jobs", "n")
