"""Indexes that migrations build, and drop, while the table is read and written to."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op


def create_index(
    name: str, table: str, columns: Sequence[str | sa.TextClause], *, unique: bool = False, where: str = ""
) -> None:
    """Build an index concurrently.

    What stands before it in its migration is committed first, and runs again if the build is interrupted: give it a
    migration of its own, or make the rest repeatable (`if_not_exists=True`). An interrupted build leaves an index that
    is not valid; it is dropped and built anew.
    Args: where: SQL; the rows of a partial index.
    """
    is_valid = op.get_bind().scalar(
        sa.text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"), {"name": name}
    )
    if is_valid:
        return
    if is_valid is False:
        drop_index(name, table)
    with op.get_context().autocommit_block():
        # It waits for transactions that began before it, and nothing queues up behind it.
        op.execute("SET lock_timeout = 0")
        rows = sa.text(where) if where else None
        op.create_index(name, table, columns, unique=unique, postgresql_concurrently=True, postgresql_where=rows)
        op.execute("RESET lock_timeout")


def drop_index(name: str, table: str) -> None:
    """Drop one concurrently, if it is there."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.drop_index(name, table_name=table, if_exists=True, postgresql_concurrently=True)
        op.execute("RESET lock_timeout")
