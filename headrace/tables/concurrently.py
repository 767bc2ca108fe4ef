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
    invalid index; the next run drops it and builds it again. The index of a partitioned table is built partition by
    partition, and is valid once it has all of them.

    Args:
        where: SQL; the rows of a partial index.
        using: the kind of index.
    """
    if parts := _parts_of(table):
        # First for all of them, so that months that are made meanwhile get it too.
        listed, rows_sql = ", ".join(map(str, columns)), f" WHERE {where}" if where else ""
        kind = "UNIQUE INDEX" if unique else "INDEX"
        op.execute(f"CREATE {kind} IF NOT EXISTS {name} ON ONLY {table} USING {using} ({listed}){rows_sql}")
    for part in parts:
        of_part = f"{name}_{part.removeprefix(table + '_')}"
        create_index(of_part, part, columns, unique=unique, where=where, using=using)
        op.execute(f"ALTER INDEX {name} ATTACH PARTITION {of_part}")
    if not parts:
        _create(name, table, columns, unique=unique, where=where, using=using)


def _create(
    name: str, table: str, columns: Sequence[str | sa.TextClause], *, unique: bool, where: str, using: str
) -> None:
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
    """Drop an index concurrently, if it exists; that of a partitioned table under a short lock."""
    if _parts_of(table):
        op.execute(f"DROP INDEX IF EXISTS {name}")
        return
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.drop_index(name, table_name=table, if_exists=True, postgresql_concurrently=True)
        op.execute("RESET lock_timeout")


def _parts_of(table: str) -> list[str]:
    parts = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass(:name) ORDER BY 1"
    return list(op.get_bind().scalars(sa.text(parts), {"name": table}))
