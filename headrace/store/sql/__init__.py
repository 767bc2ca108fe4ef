r"""The hot statements: one file each, in SQL that psql takes, here and in `states`. All else is SQLAlchemy Core.

psycopg runs them: SQLAlchemy would need longer to build some than Postgres to run them. The comment at the top of a
file says who runs it, with what, and what it returns. To try one in psql, set its parameters, each as a literal's text:

    \set given '[{"job_id": "01936d2e-0000-7000-8000-000000000001", "enqueue_no": 1}]'
    \set first_id 01936d2e-0000-0000-0000-000000000000
    \set last_id 01940dc0-0000-0000-0000-000000000000
    BEGIN;
    \i headrace/store/sql/hold.sql
    ROLLBACK;

psql writes `:'name'` into the text as a literal. Here it becomes a parameter, so that Postgres keeps the plan.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import groupby
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnClause, Connection, Select, TableValuedAlias
from sqlalchemy.dialects.postgresql import ARRAY

from headrace.domain.ids import month_of
from headrace.store import Store

#: Those of `states` change the state of jobs.
_FOLDERS = ("headrace.store.sql", "headrace.store.states")
_COMMENT = re.compile(r"^\s*--.*\n", re.MULTILINE)
_VARIABLE = re.compile(r"(?<!:):'(\w+)'")
_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode


@dataclass(frozen=True, slots=True)
class Statement:
    """One file. Attributes: name: the file's, without `.sql`. package: of a plugin's own; empty for the core's."""

    name: str
    package: str = ""

    def run(
        self, where: Connection | Store, month: tuple[UUID, UUID] | None = None, /, **parameters: Any
    ) -> Sequence[Any]:
        """Run it. Returns: rows with its columns as attributes.

        Args:
            where: a transaction; or a store, where the statement is a transaction by itself.
            month: the jobs'; see `text_of`.
        """
        sql = text_of(self.name, month, self.package)
        if isinstance(where, Store):
            return where.run(sql, parameters)
        return where.exec_driver_sql(sql, parameters).all()

    def run_by_month(
        self, where: Connection | Store, given: Iterable[Mapping[str, Any]], **parameters: Any
    ) -> list[Any]:
        """Run it once for each month of the jobs. Returns: all rows.

        The rows are one JSON parameter. One array per column would take psycopg longer than the rows take Postgres.

        Args:
            given: one row for each job, by column name, with `job_id`.
        """
        # Sorted, so that two workers lock rows in the same order and cannot deadlock.
        in_order = sorted(given, key=lambda each: each["job_id"])
        rows: list[Any] = []
        for month, of_it in groupby(in_order, key=lambda each: month_of(each["job_id"])):
            rows += self.run(where, month, given=_encode(list(of_it)), **parameters)
        return rows


@lru_cache(maxsize=256)
def text_of(name: str, month: tuple[UUID, UUID] | None = None, package: str = "") -> str:
    """The file's SQL for psycopg, without comments.

    Args:
        month: the smallest ids of the jobs' month and of the next one. They become literals, as in psql: Postgres then
            plans, locks and opens the one partition between them, and not those of all months with all their indexes.
        package: as of `Statement`.
    """
    folders = (package,) if package else _FOLDERS
    file = next(path for folder in folders if (path := files(folder).joinpath(f"{name}.sql")).is_file())
    sql = _COMMENT.sub("", file.read_text(encoding="utf-8")).replace("%", "%%")
    if month is not None:
        first_id, last_id = month[0], UUID(int=month[1].int - 1)
        sql = sql.replace(":'first_id'", f"'{first_id}'").replace(":'last_id'", f"'{last_id}'")
    return _VARIABLE.sub(r"%(\1)s", sql)


def rows_sent(parameter: str, columns: Iterable[ColumnClause[Any]], name: str = "sent") -> TableValuedAlias:
    """The rows of a JSON list as a table with this name and these columns, for a statement of SQLAlchemy Core.

    With one array per column instead, psycopg would need more time for the arrays than Postgres for the rows.
    Args: parameter: the list's name.
    """
    rows = sa.func.json_to_recordset(sa.bindparam(parameter, None, sa.JSON)).table_valued(*columns)
    return rows.render_derived(name, with_types=True)


def is_one_of(column: sa.ColumnElement[Any], values: Iterable[Any]) -> sa.ColumnElement[bool]:
    """Whether the column has one of these values. They are one parameter: the statement's text is the same for any."""
    return column == sa.any_(sa.cast(list(values), ARRAY(column.type)))


def delete_chosen(chosen: Select[Any], table: sa.Table) -> sa.Delete:
    """Delete the rows that a SELECT with a LIMIT chooses, by their physical position. The table has no partitions.

    With `key IN (SELECT ...)` on a table that was empty at its last ANALYZE, Postgres runs the SELECT again for each
    row: 10,000 rows take longer than a statement may.
    """
    assert not table.dialect_options["postgresql"]["partition_by"], "A position is one of each partition."
    place: sa.ColumnElement[Any] = sa.literal_column(f"{table.name}.ctid")
    places = chosen.with_only_columns(place, maintain_column_froms=True).correlate(None).scalar_subquery()
    return sa.delete(table).where(place == sa.any_(sa.func.array(places)))


def few(table: TableValuedAlias) -> Select[Any]:
    """Select the rows of a table as few, by their ids: the planner estimates one row between two bounds.

    So it looks up each job by its key: see `states/claim.sql`.
    """
    return sa.select(table).where(table.c.id.between(UUID(int=0), UUID(int=2**128 - 1)))
