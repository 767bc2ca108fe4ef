"""Say which versions of jobs' prompts a worker reads, and for which one a job waits.

Revision: 0070, after 0069
"""

import sqlalchemy as sa
from alembic import op

revision = "0070"
down_revision = "0069"
branch_labels = None
depends_on = None

NEEDS = "The payload version that it waits for a worker to read; NULL: no worker was too old for it."
READS = "The highest version of jobs' prompts that its release reads."


def upgrade() -> None:
    op.add_column("jobs", sa.Column("needs_version", sa.SmallInteger, comment=NEEDS))
    reads = sa.Column("payload_version", sa.SmallInteger, nullable=False, server_default=sa.text("1"), comment=READS)
    op.add_column("workers", reads)


def downgrade() -> None:
    op.drop_column("workers", "payload_version")
    op.drop_column("jobs", "needs_version")
