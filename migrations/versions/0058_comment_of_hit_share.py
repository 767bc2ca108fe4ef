"""Say what `cache_per_day.hit_share` is a share of, since single flight and the semantic cache are counted too.

Revision: 0058, after 0057
"""

from alembic import op

revision = "0058"
down_revision = "0057"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("COMMENT ON COLUMN cache_per_day.hit_share IS 'hits over all jobs for which the cache was searched.'")


def downgrade() -> None:
    op.execute("COMMENT ON COLUMN cache_per_day.hit_share IS 'hits over both.'")
