"""Let each worker report the expected length of its answers.

Revision: 0016, after 0015
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    comment = "How long its answers of each lane get, by their maximum; NULL: it does not learn it."
    op.add_column("workers", sa.Column("expected_outputs", JSONB(none_as_null=True), comment=comment))


def downgrade() -> None:
    op.drop_column("workers", "expected_outputs")
