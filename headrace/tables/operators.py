"""The accounts of operators, who log in to the pages at /ops, and what operators did."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from headrace.domain.operators.accounts import Role
from headrace.domain.operators.actions import Source
from headrace.tables.columns import created_at, metadata, moment, one_of

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
