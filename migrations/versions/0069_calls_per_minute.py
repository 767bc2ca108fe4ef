"""Let an app have its own rate of calls.

Revision: 0069, after 0068
"""

import sqlalchemy as sa
from alembic import op

revision = "0069"
down_revision = "0068"
branch_labels = None
depends_on = None

ABOUT = "Calls of one web process, accepted submits aside; NULL: as the setting says."


def upgrade() -> None:
    op.add_column("apps", sa.Column("calls_per_minute", sa.Integer, comment=ABOUT))


def downgrade() -> None:
    op.drop_column("apps", "calls_per_minute")
