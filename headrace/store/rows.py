"""Rows that a statement of SQLAlchemy Core is sent, as one JSON parameter.

With one array per column instead, psycopg would need more time for the arrays than Postgres for the rows.
"""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnClause, Select, TableValuedAlias


def rows_sent(parameter: str, columns: Iterable[ColumnClause[Any]], name: str = "sent") -> TableValuedAlias:
    """The rows of a JSON list as a table with this name and these columns. Args: parameter: the list's name."""
    rows = sa.func.json_to_recordset(sa.bindparam(parameter, None, sa.JSON)).table_valued(*columns)
    return rows.render_derived(name, with_types=True)


def few(table: TableValuedAlias) -> Select[Any]:
    """Select the rows of a table as few, by their ids: the planner estimates one row between two bounds.

    So it looks up each job by its key: see `sql/claim.sql`.
    """
    return sa.select(table).where(table.c.id.between(UUID(int=0), UUID(int=2**128 - 1)))
