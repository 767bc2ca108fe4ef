"""Store log probabilities as the JSON that is sent.

Revision: 0012, after 0011
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSON

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    comment = "Of the answer's tokens, as they are sent; NULL: they were not asked for, or are in logprobs."
    op.add_column("job_texts", sa.Column("logprobs_json", JSON(none_as_null=True), comment=comment))


def downgrade() -> None:
    # The older code reads log probabilities only from `logprobs`: without this copy, these answers would lose theirs.
    op.execute("UPDATE job_texts SET logprobs = logprobs_json::jsonb WHERE logprobs_json IS NOT NULL")
    op.drop_column("job_texts", "logprobs_json")
