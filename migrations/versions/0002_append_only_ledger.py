"""Make the ledger append-only.

Revision: 0002, after 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'ledger entries are immutable: add an adjustment instead';
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE ON ledger
        FOR EACH ROW EXECUTE FUNCTION refuse_ledger_change()
        """
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER ledger_is_append_only ON ledger")
    op.execute("DROP FUNCTION refuse_ledger_change()")
