"""Keep with each decision the load that came, so that each forecast is compared once.

Revision: 0030, after 0029
"""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

ABOUT = "The load that came around forecast_at; NULL: not compared."


def upgrade() -> None:
    op.add_column("decisions", sa.Column("actual_tokens_per_s", sa.Float, comment=ABOUT))


def downgrade() -> None:
    op.drop_column("decisions", "actual_tokens_per_s")
