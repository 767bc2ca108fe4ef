"""The webhooks that announce the ends of jobs, and receivers that are gone."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from headrace.tables.columns import created_at, metadata, moment, one_of

#: SQL by which the outbox is searched: the webhook's app (the operator's webhooks have none), and the receiver's host
#: and port.
APP_KEY = "coalesce(app_id, '00000000-0000-0000-0000-000000000000'::uuid)"
RECEIVER = """lower("substring"(url COLLATE "C", '://([^/?#]*)'::text))"""

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("job_id", sa.Uuid, comment="Whose end it tells of; NULL: see data."),
    sa.Column("app_id", sa.ForeignKey("apps.id", ondelete="CASCADE"), comment="Whose it is; NULL: the operator's."),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("data", JSONB, comment="What it says, where it is not a job's end."),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="pending"),
    sa.Column("tries", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("last_status", sa.Integer),
    sa.Column("last_error", sa.Text),
    created_at(),
    sa.Column("next_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    moment("delivered_at"),
    sa.Column(
        "tries_before",
        sa.Integer,
        nullable=False,
        server_default=sa.text("0"),
        comment="Of the tries, those before an operator's last retry: the schedule does not count them.",
    ),
    one_of("state", ("pending", "delivered", "failed"), "state"),
    sa.CheckConstraint("num_nonnulls(job_id, data) = 1", name="about"),
    sa.UniqueConstraint("job_id", "event"),
    sa.Index("ix_deliveries_pending", "next_at", postgresql_where=sa.text("state = 'pending'")),
    sa.Index(
        "ix_deliveries_receiver",
        sa.text(APP_KEY),
        sa.text(f"({RECEIVER})"),
        "next_at",
        postgresql_where=sa.text("state = 'pending'"),
    ),
    sa.Index("ix_deliveries_failed", "id", postgresql_where=sa.text("state = 'failed'")),
    postgresql_partition_by="RANGE (job_id)",
)

gone_receivers = sa.Table(
    "gone_receivers",
    metadata,
    sa.Column("digest", sa.LargeBinary, primary_key=True, comment="SHA-256 of the app's id and the URL."),
    sa.Column("app_id", sa.ForeignKey("apps.id", ondelete="CASCADE"), comment="Whose it is; NULL: the operator's."),
    sa.Column("url", sa.Text, nullable=False),
    created_at(),
    sa.Index("ix_gone_receivers_created_at", "created_at"),
    comment="URLs that answered 410: nothing of that app is sent there any more.",
)
