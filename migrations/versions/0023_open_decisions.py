"""Index the scaling decisions that are still to be carried out, and the hosts that have not ended.

Revision: 0023, after 0022
"""

from headrace.tables import concurrently

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

OPEN = "mode = 'active' AND action <> 'hold' AND applied_at IS NULL"


def upgrade() -> None:
    concurrently.create_index("ix_decisions_open", "decisions", ["pool"], where=OPEN)
    concurrently.create_index("ix_hosts_live", "hosts", ["pool"], where="ended_at IS NULL")


def downgrade() -> None:
    concurrently.drop_index("ix_hosts_live", "hosts")
    concurrently.drop_index("ix_decisions_open", "decisions")
