"""Store an answer's calls of tools.

Revision: 0059, after 0058
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0059"
down_revision = "0058"
branch_labels = None
depends_on = None

COMMENT = "The answer's calls of tools, as chat completions have them; NULL: none."


def upgrade() -> None:
    op.add_column("job_texts", sa.Column("tool_calls", JSONB(), comment=COMMENT))


def downgrade() -> None:
    op.drop_column("job_texts", "tool_calls")
