"""Add limits and lanes to apps, scopes to keys, a stream to jobs, and tokens to queue samples.

Revision: 0004, after 0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

LIMITS = {
    "queued_jobs": "Jobs of it that may wait at once; NULL: as many as the queues take.",
    "requests_per_minute": "NULL: no limit.",
    "tokens_per_minute": "Prompt and the most output; NULL: no limit.",
}


def upgrade() -> None:
    for name, comment in LIMITS.items():
        op.add_column("apps", sa.Column(name, sa.Integer, comment=comment))
    op.add_column("apps", sa.Column("lanes", ARRAY(sa.Text), comment="Those it may use; NULL: all."))
    scopes = sa.Column("scopes", ARRAY(sa.Text), nullable=False, server_default=sa.text("'{submit,read}'"))
    op.add_column("api_keys", scopes)
    comment = "Its tokens are published."
    op.add_column("jobs", sa.Column("stream", sa.Boolean, nullable=False, server_default=sa.false(), comment=comment))
    op.add_column("jobs", sa.Column("erased_at", sa.TIMESTAMP(timezone=True)))
    for name in ("depth_tokens", "started_tokens"):
        tokens = sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0"))
        op.add_column("queue_samples", tokens)


def downgrade() -> None:
    for name in ("depth_tokens", "started_tokens"):
        op.drop_column("queue_samples", name)
    op.drop_column("jobs", "erased_at")
    op.drop_column("jobs", "stream")
    op.drop_column("api_keys", "scopes")
    for name in ("lanes", *LIMITS):
        op.drop_column("apps", name)
