"""Let workers pull due webhooks by receiver, and let operators retry a webhook.

Revision: 0015, after 0014
"""

import sqlalchemy as sa
from alembic import op

from headrace.tables import concurrently

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

TRIES_BEFORE = "Of the tries, those before an operator's last retry: the schedule does not count them."
APP_KEY = "coalesce(app_id, '00000000-0000-0000-0000-000000000000'::uuid)"
RECEIVER = """(lower("substring"(url COLLATE "C", '://([^/?#]*)'::text)))"""


def upgrade() -> None:
    # The table may hold every webhook ever sent, and its writers must go on.
    columns = [sa.text(APP_KEY), sa.text(RECEIVER), "next_at"]
    concurrently.create_index("ix_deliveries_receiver", "deliveries", columns, where="state = 'pending'")
    op.add_column(
        "deliveries",
        sa.Column("tries_before", sa.Integer, nullable=False, server_default=sa.text("0"), comment=TRIES_BEFORE),
    )


def downgrade() -> None:
    op.drop_index("ix_deliveries_receiver", table_name="deliveries")
    op.drop_column("deliveries", "tries_before")
