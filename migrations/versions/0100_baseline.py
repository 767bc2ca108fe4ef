"""Make the tables of 0.1.

Revision: 0100, the first. Until 0.1.0 is tagged it may be rewritten. It is SQL and not `metadata.create_all`: a later
migration must find the tables as they were then, and `headrace.tables` describes those of now.
"""

import re
from pathlib import Path

from alembic import op

revision = "0100"
down_revision = None
branch_labels = None
depends_on = None

SQL = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
#: A table stands after those that it refers to.
TABLES = re.findall(r"^CREATE TABLE (\w+) \($", SQL, re.MULTILINE)


def upgrade() -> None:
    op.get_bind().exec_driver_sql(SQL.replace("%", "%%"))


def downgrade() -> None:
    # The extension stays: it may serve others.
    op.execute(f"DROP TABLE {', '.join(TABLES)}")
    op.execute("DROP FUNCTION refuse_ledger_change, note_job_retry, refuse_audit_change")
