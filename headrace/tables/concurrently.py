"""Indexes that migrations build and drop while the table is read and written."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op


def create_index(
    name: str,
    table: str,
    columns: Sequence[str | sa.TextClause],
    *,
    unique: bool = False,
    where: str = "",
    using: str = "btree",
) -> None:
    """Build an index concurrently.

    Earlier statements of the same migration are committed first, and run again if the build is interrupted. So give the
    index its own migration, or make those statements repeatable (`if_not_exists=True`). An interrupted build leaves an
    invalid index; the next run drops it and builds it again.

    Args:
        where: SQL; the rows of a partial index.
        using: the kind of index.
    """
    is_valid = op.get_bind().scalar(
        sa.text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"), {"name": name}
    )
    if is_valid:
        return
    if is_valid is False:
        drop_index(name, table)
    with op.get_context().autocommit_block():
        # The build waits for earlier transactions, but no other statement queues behind it: no time-out is needed.
        op.execute("SET lock_timeout = 0")
        rows = sa.text(where) if where else None
        how: dict[str, Any] = {"postgresql_concurrently": True, "postgresql_where": rows, "postgresql_using": using}
        op.create_index(name, table, columns, unique=unique, **how)
        op.execute("RESET lock_timeout")


def drop_index(name: str, table: str) -> None:
    """Drop an index concurrently, if it exists."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.drop_index(name, table_name=table, if_exists=True, postgresql_concurrently=True)
        op.execute("RESET lock_timeout")
