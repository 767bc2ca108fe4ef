"""Statements that are compiled once and take any number of rows as one JSON parameter.

With one array per column instead, psycopg would need more time for the arrays than Postgres for the rows.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnClause, Connection, Row, Select, TableValuedAlias
from sqlalchemy.sql.dml import ReturningInsert

_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL for the driver. Through SQLAlchemy, each run would cost more than it costs Postgres."""

    sql: str
    parameters: Mapping[str, Any]

    @classmethod
    def of(cls, statement: Select[Any] | ReturningInsert[Any]) -> "Statement":
        """Compile it."""
        dialect = sa.make_url("postgresql+psycopg://").get_dialect()()
        compiled = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
        return cls(str(compiled), compiled.params)

    def run(self, db: Connection, given: Sequence[Mapping[str, Any]]) -> Sequence[Row[Any]]:
        """Run it. Args: given: one row per attempt, by column name; no job may be in it twice."""
        # Sorted, so that two workers lock rows in the same order and cannot deadlock.
        in_order = sorted(given, key=lambda each: each["job_id"])
        return db.exec_driver_sql(self.sql, {**self.parameters, "given": _encode(in_order)}).all()


def rows_sent(parameter: str, columns: Iterable[ColumnClause[Any]], name: str = "sent") -> TableValuedAlias:
    """The rows of a JSON list as a table with this name and these columns. Args: parameter: the list's name."""
    rows = sa.func.json_to_recordset(sa.bindparam(parameter, None, sa.JSON)).table_valued(*columns)
    return rows.render_derived(name, with_types=True)
