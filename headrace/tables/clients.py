"""The apps that call the API, their keys, limits and budgets; the operators, and what they did."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from headrace.domain.operators import Role, Source
from headrace.tables.columns import USD, created_at, metadata, moment, one_of

apps = sa.Table(
    "apps",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("webhook_secret", sa.Text, nullable=False),
    created_at(),
    sa.Column("queued_jobs", sa.Integer, comment="Jobs of it that may wait at once; NULL: as many as the queues take."),
    sa.Column("requests_per_minute", sa.Integer, comment="NULL: no limit."),
    sa.Column("tokens_per_minute", sa.Integer, comment="Prompt and the most output; NULL: no limit."),
    sa.Column("lanes", ARRAY(sa.Text), comment="The lanes that it may use; NULL: all."),
    sa.Column("day_usd", USD, comment="The limit of its USD at the paid API in a day of UTC; NULL: none."),
    sa.Column("month_usd", USD, comment="The limit of its USD at the paid API in a month of UTC; NULL: none."),
    sa.Column("webhook_secret_old", sa.Text, comment="The secret before; it signs too until webhook_secret_old_until."),
    moment("webhook_secret_old_until"),
    sa.Column(
        "cache_s",
        sa.Integer,
        comment="How long its answers serve its identical jobs, in seconds; 0: never; NULL: as long as the pool says.",
    ),
    sa.Column(
        "max_error",
        sa.Float,
        comment="Share of the semantic cache's answers that may be wrong; 0: no such answers; NULL: as the pool says.",
    ),
    sa.Column(
        "calls_per_minute",
        sa.Integer,
        comment="Calls of one web process, accepted submits aside; NULL: as the setting says.",
    ),
    comment="Clients of the API.",
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("app_id", sa.ForeignKey("apps.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("hint", sa.Text, nullable=False, comment="What may be shown of the key: its first characters."),
    sa.Column("digest", sa.LargeBinary, nullable=False, unique=True, comment="HMAC-SHA256 under the pepper."),
    created_at(),
    moment("expires_at"),
    moment("revoked_at"),
    sa.Column("scopes", ARRAY(sa.Text), nullable=False, server_default=sa.text("'{submit,read}'")),
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("app_id", sa.ForeignKey("apps.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("request_hash", sa.LargeBinary, nullable=False),
    sa.Column("job_id", sa.Uuid, nullable=False),
    moment("expires_at", nullable=False, index=True),
)

budgets = sa.Table(
    "budgets",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("app_id", sa.ForeignKey("apps.id", ondelete="CASCADE"), comment="NULL: the budget of all apps together."),
    sa.Column("period", sa.Text, nullable=False),
    sa.Column("starts_at", sa.TIMESTAMP(timezone=True), nullable=False),
    sa.Column("reserved_usd", USD, nullable=False, server_default=sa.text("0")),
    sa.Column("spent_usd", USD, nullable=False, server_default=sa.text("0")),
    sa.Column(
        "told_percent",
        sa.SmallInteger,
        nullable=False,
        server_default=sa.text("0"),
        comment="The highest threshold of what was spent that the operator was told about.",
    ),
    sa.Column(
        "short_at",
        sa.TIMESTAMP(timezone=True),
        comment="When a call first found too little left beside what was spent, near the limit.",
    ),
    sa.Column(
        "told_reserved_percent",
        sa.SmallInteger,
        nullable=False,
        server_default=sa.text("0"),
        comment="The highest threshold of what was spent and reserved that the operator was told about.",
    ),
    sa.Column(
        "reserved_short_at",
        sa.TIMESTAMP(timezone=True),
        comment="When a call first found too little left beside what was spent and reserved, near the limit.",
    ),
    sa.Column(
        "limit_usd",
        USD,
        comment="The limit of all apps together when the control process last looked; NULL: none.",
    ),
    one_of("period", ("day", "month"), "period"),
    sa.UniqueConstraint("app_id", "period", "starts_at", postgresql_nulls_not_distinct=True),
    comment="What was spent at the paid API, and may yet be by calls under way. The limits are the apps' and settings.",
)

unsettled_calls = sa.Table(
    "unsettled_calls",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("job_id", sa.Uuid, nullable=False),
    sa.Column("app_id", sa.Uuid, nullable=False),
    moment("started_at", nullable=False, comment="When the attempt began: its day and month pay."),
    sa.Column("reserved_usd", USD, nullable=False, comment="What the budgets still hold for it."),
    sa.Column("usd", USD, nullable=False, comment="What it has cost."),
    comment="Calls to the paid API that have ended while their budgets' rows were locked.",
)

budget_limits = sa.Table(
    "budget_limits",
    metadata,
    sa.Column("id", sa.SmallInteger, primary_key=True, server_default=sa.text("1")),
    sa.Column("day_usd", USD, comment="The limit of all apps' USD in a day of UTC; NULL: none."),
    sa.Column("month_usd", USD, comment="The limit of all apps' USD in a month of UTC; NULL: none."),
    sa.Column("set_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.CheckConstraint("id = 1", name="one_row"),
    comment="The stored limits of all apps together at the paid API, one row; without it those of the settings hold.",
)


operators = sa.Table(
    "operators",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("password_hash", sa.Text, nullable=False, comment="Salted scrypt; a new one ends the open sessions."),
    created_at(),
    one_of("role", Role, "role"),
)

failed_logins = sa.Table(
    "failed_logins",
    metadata,
    sa.Column("digest", sa.LargeBinary, primary_key=True, comment="SHA-256 of the name that was given."),
    sa.Column("tries", sa.Integer, nullable=False),
    moment("until", nullable=False, index=True, comment="Then they are forgotten."),
    comment="Failed logins by name, whether an operator has it or not.",
)

audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True, comment="Grows with the time."),
    sa.Column(
        "at",
        sa.TIMESTAMP(timezone=True),
        nullable=False,
        server_default=sa.func.now(),
        index=True,
        comment="The start of the transaction in which it was done.",
    ),
    sa.Column(
        "actor",
        sa.Text,
        nullable=False,
        comment="The operator: the account at /ops, user@host in a terminal, the login of Flower, or celery.",
    ),
    sa.Column(
        "source",
        sa.Text,
        nullable=False,
        comment="pages: logged in at /ops; cli: in a terminal that reaches the database; celery: Flower or celery "
        "control.",
    ),
    sa.Column(
        "action",
        sa.Text,
        nullable=False,
        comment="The kind of the subject, and what was done to it, such as key.revoke.",
    ),
    sa.Column("subject", sa.Text, nullable=False, comment="The id or name of what it was done to."),
    sa.Column("app_id", sa.Uuid, comment="The app that the subject is, or belongs to; NULL: none."),
    sa.Column(
        "details",
        JSONB,
        nullable=False,
        server_default=sa.text("'{}'"),
        comment="What changed, before and after. No secret, no prompt, no answer.",
    ),
    one_of("source", Source, "source"),
    comment="What operators did, each in the transaction that did it. A row never changes.",
)
