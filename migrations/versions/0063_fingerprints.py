"""Keep by what the search of the semantic cache finds an entry. An older one is found no more.

Revision: 0063, after 0062
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0063"
down_revision = "0062"
branch_labels = None
depends_on = None

ABOUT = "What a search finds it by: hashes of the scope and of what both questions must have in common."


def upgrade() -> None:
    op.add_column("cache_entries", sa.Column("fingerprints", ARRAY(sa.LargeBinary), comment=ABOUT))


def downgrade() -> None:
    op.drop_column("cache_entries", "fingerprints")
