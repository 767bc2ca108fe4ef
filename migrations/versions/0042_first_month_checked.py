"""Check the bounds of the first partitions, so that nothing is read when they are attached.

Revision: 0042, after 0041
"""

from alembic import op

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Reads each table, and lets others read and write meanwhile.
    for table in ("jobs", "job_texts", "attempts", "ledger", "deliveries"):
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT ck_{table}_first")


def downgrade() -> None:
    """A valid constraint needs no undoing."""
