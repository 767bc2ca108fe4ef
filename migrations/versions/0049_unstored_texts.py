"""Note the jobs whose requests asked to keep nothing of their texts.

Revision: 0049, after 0048
"""

import sqlalchemy as sa
from alembic import op

revision = "0049"
down_revision = "0048"
branch_labels = None
depends_on = None

ABOUT = "True: the request asked to keep nothing of its texts, which are erased once they are delivered; else NULL."


def upgrade() -> None:
    op.add_column("job_texts", sa.Column("is_unstored", sa.Boolean, comment=ABOUT))


def downgrade() -> None:
    op.drop_column("job_texts", "is_unstored")
