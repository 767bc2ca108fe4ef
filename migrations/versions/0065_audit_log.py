"""Record what operators do in a table to which rows can only be added.

Revision: 0065, after 0064
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0065"
down_revision = "0064"
branch_labels = None
depends_on = None

COLUMNS = {
    "id": "Grows with the time.",
    "at": "The start of the transaction in which it was done.",
    "actor": "The operator: the account at /ops, user@host in a terminal, the login of Flower, or celery.",
    "source": "pages: logged in at /ops; cli: in a terminal that reaches the database; celery: Flower or celery "
    "control.",
    "action": "The kind of the subject, and what was done to it, such as key.revoke.",
    "subject": "The id or name of what it was done to.",
    "details": "What changed, before and after. No secret, no prompt, no answer.",
}


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True, comment=COLUMNS["id"]),
        sa.Column(
            "at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now(), comment=COLUMNS["at"]
        ),
        sa.Column("actor", sa.Text, nullable=False, comment=COLUMNS["actor"]),
        sa.Column("source", sa.Text, nullable=False, comment=COLUMNS["source"]),
        sa.Column("action", sa.Text, nullable=False, comment=COLUMNS["action"]),
        sa.Column("subject", sa.Text, nullable=False, comment=COLUMNS["subject"]),
        sa.Column("app_id", sa.Uuid, comment="The app that the subject is, or belongs to; NULL: none."),
        sa.Column("details", JSONB, nullable=False, server_default=sa.text("'{}'"), comment=COLUMNS["details"]),
        sa.CheckConstraint("source IN ('pages', 'cli', 'celery')", name=op.f("ck_audit_log_source")),
        comment="What operators did, each in the transaction that did it. A row never changes.",
    )
    op.create_index("ix_audit_log_at", "audit_log", ["at"])
    op.execute(
        """
        CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'the audit log is append-only';
        END $$
        """
    )
    # For each statement: one that finds no row is refused too, and TRUNCATE fires no trigger for rows.
    op.execute(
        """
        CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()
        """
    )
    op.execute(
        """
        CREATE VIEW operator_actions AS
        SELECT l.id, l.at, l.actor, l.source, l.action, l.subject, a.name AS app, l.details
        FROM audit_log l LEFT JOIN apps a ON a.id = l.app_id
        """
    )
    op.execute(
        "COMMENT ON VIEW operator_actions IS 'What operators did, newest last: the audit log with apps by name.'"
    )
    for column, about in {**COLUMNS, "app": "The app''s name; NULL: none."}.items():
        op.execute(f"COMMENT ON COLUMN operator_actions.{column} IS '{about}'")


def downgrade() -> None:
    op.execute("DROP VIEW operator_actions")
    op.drop_table("audit_log")
    op.execute("DROP FUNCTION refuse_audit_change()")
