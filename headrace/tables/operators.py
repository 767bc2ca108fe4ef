"""The accounts of operators, who log in to the pages at /ops."""

import sqlalchemy as sa

from headrace.domain.operators.accounts import Role
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
