"""Find the few entries of a job beside its bill, such as waste, without reading all of the ledger.

Revision: 0039, after 0038
"""

from headrace.tables.concurrently import create_index, drop_index

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_index("ix_ledger_unbilled", "ledger", ["job_id"], where="kind NOT IN ('compute', 'api', 'cache')")


def downgrade() -> None:
    drop_index("ix_ledger_unbilled", "ledger")
